package deliver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

func mdaJob(home, command string) queue.Job {
	return testJob(1, lookup.Delivery{
		Method: "mda", Command: command, Home: home,
		Env: []string{"PATH=/usr/bin:/bin", "SENDER=alice@a.example", "EXTENSION="},
	}, testBody)
}

func TestMDAFeedsTheMessage(t *testing.T) {
	home := t.TempDir()
	st := testAgent(t, osFS{}).try(t, mdaJob(home, `cat >msg; pwd >where; env | sort >env; echo done`))
	wantStatus(t, st, queue.Delivered, "2.0.0", "Delivered")
	if b, err := os.ReadFile(home + "/msg"); err != nil || string(b) != onDisk {
		t.Errorf("stdin %q, %v", b, err)
	}
	if b, _ := os.ReadFile(home + "/where"); strings.TrimSpace(string(b)) != home {
		t.Errorf("directory %q", b)
	}
	b, _ := os.ReadFile(home + "/env")
	for line := range strings.Lines(string(b)) {
		switch name, _, _ := strings.Cut(line, "="); name {
		case "PATH", "SENDER", "EXTENSION", "PWD", "OLDPWD", "SHLVL", "_": // the last four are the shell's own
		default:
			t.Errorf("environment has %q", line)
		}
	}
	if !strings.Contains(string(b), "SENDER=alice@a.example\n") {
		t.Errorf("environment %q", b)
	}
}

func TestMDAExitCodes(t *testing.T) {
	for _, c := range []struct {
		command, enhanced, text string
		outcome                 queue.Outcome
	}{
		{"exit 0", "2.0.0", "Delivered", queue.Delivered},
		{"cat >/dev/null; echo first; echo 'no such   user' >&2; exit 67", "5.1.1", "mda: no such   user", queue.Failed},
		{"exit 1", "5.3.0", "exit status 1", queue.Failed},
		{"exit 65", "5.6.0", "", queue.Failed},
		{"exit 77", "5.7.0", "", queue.Failed},
		{"exit 78", "5.3.5", "", queue.Failed},
		{"echo later; exit 75", "4.3.0", "mda: later", queue.Deferred},
		{"exit 71", "4.3.0", "exit status 71", queue.Deferred},
		{"kill -9 $$", "4.3.0", "signal 9", queue.Deferred},
		{"kill -TERM $$", "4.3.0", "signal 15", queue.Deferred},
		{"/no/such/program", "5.3.0", "not found", queue.Failed},
		{`printf 'bad\033[1m\r\nline two\001\n\n\n'; exit 1`, "5.3.0", "line two?", queue.Failed},
	} {
		t.Run(c.command, func(t *testing.T) {
			wantStatus(t, testAgent(t, osFS{}).try(t, mdaJob("", c.command)), c.outcome, c.enhanced, c.text)
		})
	}
}

func TestMDAHomeIsMissing(t *testing.T) {
	out := filepath.Join(t.TempDir(), "where")
	wantStatus(t, testAgent(t, osFS{}).try(t, mdaJob("/no/such/home", "pwd >"+out)), queue.Delivered, "2.0.0", "")
	if b, _ := os.ReadFile(out); string(b) != "/\n" {
		t.Errorf("directory %q", b)
	}
}

// The command and what it started end with the time; others do not.
func TestMDATimeout(t *testing.T) {
	home := t.TempDir()
	a := testAgent(t, osFS{})
	a.opt.Timeout = 300 * time.Millisecond
	job := mdaJob(home, "sleep 1000 & echo $! >pid; wait")
	wantStatus(t, a.try(t, job), queue.Deferred, "4.3.0", "killed after 300ms")
	b, err := os.ReadFile(home + "/pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	waitGone(t, pid)
}

// waitGone waits until a process is gone or a zombie that nobody here reaps.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	err := poll(t.Context(), func() (bool, error) {
		stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		gone := errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
		return gone || bytes.Contains(stat, []byte(") Z ")), nil
	})
	if err != nil {
		t.Errorf("process %d: %v", pid, err)
	}
}

// A grandchild that keeps the output open does not keep the delivery.
func TestMDABackgroundChild(t *testing.T) {
	home := t.TempDir()
	st := testAgent(t, osFS{}).try(t, mdaJob(home, "sleep 1000 & echo $! >pid; exit 0"))
	wantStatus(t, st, queue.Delivered, "2.0.0", "")
	b, _ := os.ReadFile(home + "/pid")
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the child should go on: %v", err)
	}
}

func TestMDAOutputIsBounded(t *testing.T) {
	st := testAgent(t, osFS{}).try(t, mdaJob("", "yes 0123456789 | head -c 20000000; echo; echo the end; exit 1"))
	wantStatus(t, st, queue.Failed, "5.3.0", "mda: the end")
	out := &tail{}
	for range 1000 {
		_, _ = out.Write(bytes.Repeat([]byte("x"), 777))
	}
	if len(out.buf) > tailSize || cap(out.buf) > 4*tailSize {
		t.Errorf("kept %d of %d", len(out.buf), cap(out.buf))
	}
}

// A message that is larger than the pipe, to a command that does not read.
func TestMDADoesNotRead(t *testing.T) {
	job := mdaJob("", "exit 0")
	job.Body = bytes.Repeat([]byte("x"), 1<<20)
	job.Message.Size = 1 << 20
	wantStatus(t, testAgent(t, osFS{}).try(t, job), queue.Delivered, "2.0.0", "")
}

// When the body breaks off, the command must not take that for the end.
func TestMDABodyBreaksOff(t *testing.T) {
	home := t.TempDir()
	job := mdaJob(home, "cat >msg && mv msg whole")
	job.Body, job.Message.Size = nil, 3*queue.InlineBody
	q := newFakeQueue()
	q.bodies[job.Message.ID] = append([]byte("A: b\r\n\r\n"), make([]byte, 3*queue.InlineBody)...)
	q.bodyErr = func(offset int64) error {
		if offset > queue.InlineBody {
			return errors.New("queue is gone")
		}
		return nil
	}
	a := newAgent(q, Options{Hostname: "h"}.withDefaults(), osFS{})
	wantStatus(t, a.try(t, job), queue.Deferred, "4.3.0", "mda: body: read from the queue at 131072: queue is gone")
	if _, err := os.Stat(home + "/whole"); err == nil {
		t.Error("the command took a part for the message")
	}
}

func TestMDAStopped(t *testing.T) {
	home := t.TempDir()
	if err := syscall.Mkfifo(home+"/begun", 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = os.ReadFile(home + "/begun") // until the command opened it
		cancel()
	}()
	a := testAgent(t, osFS{})
	job := mdaJob(home, "cat >/dev/null; echo >begun; sleep 1000")
	if st := a.deliver(ctx, newParcel(a.worker, job, job.Envelopes[0])); st.outcome != queue.Returned {
		t.Errorf("status %+v", st)
	}
}

// Descriptors from the parent, such as the connection to the queue, stay here.
func TestMDAInheritsNothing(t *testing.T) {
	// A descriptor as a parent hands it down: not close-on-exec.
	secret, err := syscall.Dup(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(secret) }()
	for name, hide := range map[string]func(){"range": closeInherited, "one by one": closeLow} {
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(secret), syscall.F_SETFD, 0); errno != 0 {
			t.Fatal(errno)
		}
		hide()
		home := t.TempDir()
		st := testAgent(t, osFS{}).try(t, mdaJob(home, "ls /proc/self/fd >fds"))
		wantStatus(t, st, queue.Delivered, "2.0.0", "")
		// 3 is the directory that ls reads.
		if b, _ := os.ReadFile(home + "/fds"); string(b) != "0\n1\n2\n3\n" {
			t.Errorf("%s: descriptors %q", name, b)
		}
	}
}
