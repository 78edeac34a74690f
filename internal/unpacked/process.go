package unpacked

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Process is a server's first process, the parent of its others.
type Process struct {
	Pid   int
	Ended <-chan struct{} // closed when it has ended
	proc  *os.Process
	err   error // how, valid after Ended
}

// Launch starts a server whose output goes to the end of a log file. It calls
// start for that, or cmd.Start when start is nil.
func Launch(cmd *exec.Cmd, logFile string, start func() error) (*Process, error) {
	out, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = out, out
	if start == nil {
		start = cmd.Start
	}
	err = start()
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	p := &Process{Pid: cmd.Process.Pid, Ended: ended, proc: cmd.Process}
	go func() {
		p.err = cmd.Wait()
		close(ended)
	}()
	return p, nil
}

// Err waits for the end, and returns how it came.
func (p *Process) Err() error {
	<-p.Ended
	return p.err
}

// Signal sends a signal to the process alone, unless it has ended.
func (p *Process) Signal(sig syscall.Signal) error { return p.proc.Signal(sig) }

// End sends a signal and reports whether the process ended within patience.
func (p *Process) End(sig syscall.Signal, patience time.Duration) bool {
	_ = p.Signal(sig) // it may have ended by itself
	select {
	case <-p.Ended:
		return true
	case <-time.After(patience):
		return false
	}
}

// EndGroup ends the leader of a process group, which should end its children,
// and then whatever is left of the group.
func (p *Process) EndGroup(patience time.Duration) {
	p.End(syscall.SIGTERM, patience)
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // nothing may be left
	<-p.Ended
	// Orphans are there until the system has reaped them.
	for until := time.Now().Add(patience); syscall.Kill(-p.Pid, 0) == nil && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
}

// LogText is the text of a log file so far, or why there is none.
func LogText(logFile string) string {
	text, err := os.ReadFile(logFile)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Compile makes a shared library of a C source, to be preloaded.
func Compile(ctx context.Context, source, library string) error {
	cmd := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-O2", "-x", "c", "-o", library, "-", "-ldl")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %w\n%s", err, out)
	}
	return nil
}
