package deliver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tabard/lookup"
)

// childVar tells the test binary to be a child with a task instead.
const childVar = "TABARD_DELIVER_CHILD"

// TestMain runs the tests, or the task of a child.
func TestMain(m *testing.M) {
	switch task, arg, _ := strings.Cut(os.Getenv(childVar), " "); task {
	case "lock":
		childLock(arg)
	case "maildir":
		childMaildir(arg)
	default:
		os.Exit(m.Run())
	}
}

// startChild runs this program with a task, and returns it with its output
// after the first line, and its input.
func startChild(t *testing.T, task string) (*exec.Cmd, *bufio.Scanner, io.Closer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+task)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("child said nothing: %v", lines.Err())
	}
	return cmd, lines, in
}

// lockInChild holds an fcntl lock on a file until release.
func lockInChild(t *testing.T, path string) (release func()) {
	t.Helper()
	cmd, _, in := startChild(t, "lock "+path)
	return func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func childLock(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = lockFile(context.Background(), f)
	}
	fmt.Println("locked", err)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

const killedSize = 300 << 10

// childMaildir delivers without end, and prints a line for each.
func childMaildir(dir string) {
	body := strings.Repeat("0123456789abcdef0123456789abcd\r\n", killedSize/32)
	a := newAgent(newFakeQueue(), Options{Hostname: "h"}.withDefaults(), osFS{})
	for range 4 {
		go func() {
			for {
				job := testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, body)
				st := a.deliver(context.Background(), newParcel(a.worker, job, job.Envelopes[0]))
				fmt.Println(st.outcome.String(), st.text)
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// A delivery that is killed leaves nothing in new that is not whole, and
// everything that it reported.
func TestKilledDeliveries(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	reported, unfinished := 0, 0
	for round := range 20 {
		cmd, lines, in := startChild(t, "maildir "+dir)
		reported++ // the line that startChild read
		for range round {
			if lines.Scan() {
				reported++
			}
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			reported++
		}
		_ = cmd.Wait()
		_ = in.Close()
	}
	size := int64(killedSize/32*31 + len("Return-Path: <alice@a.example>\nDelivered-To: bob@b.example\n"))
	entries, err := os.ReadDir(filepath.Join(dir, "new"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() != size {
			t.Errorf("%s: %d bytes, %v; want %d", e.Name(), info.Size(), err, size)
		}
	}
	if len(entries) < reported {
		t.Errorf("%d reported, %d there", reported, len(entries))
	}
	unfinished = len(files(t, filepath.Join(dir, "tmp")))
	t.Logf("%d reported, %d in new, %d left in tmp", reported, len(entries), unfinished)
	if n, err := sweepTmp(filepath.Join(dir, "tmp"), time.Now().Add(time.Hour)); err != nil || n != unfinished {
		t.Errorf("swept %d, %v; want %d", n, err, unfinished)
	}
}
