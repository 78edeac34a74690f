package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"syscall"
	"time"

	"tabard/internal/address"
	"tabard/queue"
)

// mdaLinger is how long the output of a command is waited for after it ended:
// a child that it left behind may hold the pipe open.
const mdaLinger = time.Second

// Exit codes of sysexits.h that matter to delivery.
const (
	exDataErr  = 65
	exNoUser   = 67
	exOSErr    = 71
	exTempFail = 75
	exNoPerm   = 77
	exConfig   = 78
)

// command feeds the message to `/bin/sh -c`, in the user's home, with the
// environment of the delivery and nothing else, in a process group of its own.
func (a *agent) command(ctx context.Context, p *parcel) status {
	limited, cancel := context.WithTimeout(ctx, a.opt.Timeout)
	defer cancel()
	cmd, out := a.shell(p)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return deferred("4.3.0", "mda: %v", err)
	}
	if err := cmd.Start(); err != nil {
		_ = stdin.Close()
		return deferred("4.3.0", "mda: %v", err)
	}
	group := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	stop := context.AfterFunc(limited, group)
	fed := make(chan error, 1)
	go func() { fed <- feed(limited, p, stdin, group) }()
	err = cmd.Wait()
	timely := stop()
	// A grandchild may hold the other end of the pipe and not read.
	_ = stdin.Close()
	feedErr := <-fed
	switch {
	case err == nil && feedErr == nil:
		return delivered("Delivered")
	case !timely && ctx.Err() != nil:
		return status{outcome: queue.Returned}
	case !timely:
		return deferred("4.3.0", "mda: the command was killed after %v", a.opt.Timeout)
	case feedErr != nil:
		return statusOf(fmt.Errorf("mda: %w", feedErr))
	}
	return exitStatus(cmd, err, out.lastLine())
}

// shell prepares the command.
func (a *agent) shell(p *parcel) (*exec.Cmd, *tail) {
	out := &tail{}
	cmd := exec.Command("/bin/sh", "-c", p.how.Command)
	cmd.Env = append([]string{}, p.how.Env...) // not nil: that would be our own
	cmd.Dir = "/"
	if info, err := a.fs.Stat(p.how.Home); p.how.Home != "" && err == nil && info.IsDir() {
		cmd.Dir = p.how.Home
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = mdaLinger
	return cmd, out
}

// feed writes the message to the command. A command need not read it all. When
// the body cannot be had, the command is killed before it could take the end of
// the pipe for the end of the message.
func feed(ctx context.Context, p *parcel, stdin io.WriteCloser, kill func()) error {
	err := p.writeTo(ctx, stdin)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	if err != nil {
		kill()
	}
	_ = stdin.Close()
	return err
}

// exitStatus reads an exit code as OpenSMTPD does: 71, 75 and death by a signal
// are temporary, all else but 0 is permanent.
func exitStatus(cmd *exec.Cmd, err error, last string) status {
	state := cmd.ProcessState
	if state == nil {
		return deferred("4.3.0", "mda: %v", err)
	}
	ws, _ := state.Sys().(syscall.WaitStatus)
	code := state.ExitCode()
	if last == "" {
		last = "the command ended with " + state.String()
	}
	switch {
	case ws.Signaled():
		return deferred("4.3.0", "mda: killed by signal %d (%v)", ws.Signal(), ws.Signal())
	case code == 0:
		return delivered("Delivered")
	case code == exOSErr || code == exTempFail:
		return deferred("4.3.0", "mda: %s", last)
	}
	return failed(exitEnhanced(code), "mda: %s", last)
}

// exitEnhanced finds the status code of RFC 3463 nearest to a permanent exit code.
func exitEnhanced(code int) string {
	switch code {
	case exDataErr:
		return "5.6.0"
	case exNoUser:
		return "5.1.1"
	case exNoPerm:
		return "5.7.0"
	case exConfig:
		return "5.3.5"
	}
	return "5.3.0"
}

// tail keeps the end of a command's output.
type tail struct{ buf []byte }

// tailSize bounds what is kept, in bytes.
const tailSize = 2 << 10

// Write implements io.Writer. It never fails, so that the command can go on.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > tailSize {
		p = p[len(p)-tailSize:]
	}
	if over := len(t.buf) + len(p) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// lastLine is the last line that is not empty, safe on one line.
func (t *tail) lastLine() string {
	var last string
	for line := range bytes.Lines(t.buf) {
		if s := address.OneLine(string(line), maxText); s != "" {
			last = s
		}
	}
	return last
}
