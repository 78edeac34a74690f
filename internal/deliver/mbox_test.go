package deliver

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

func mboxJob(path, body string) queue.Job {
	return testJob(1, lookup.Delivery{Method: "mbox", Path: path}, body)
}

// undated replaces the dates of From_ lines.
func undated(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^(From \S+) [A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}$`).ReplaceAllString(string(b), "$1 DATE")
}

const inMbox = "From alice@a.example DATE\nReturn-Path: <alice@a.example>\nDelivered-To: bob@b.example\n" +
	"Subject: hi\nX-Spam: no\n\nhello\n.dot\n>From me\n\n"

func TestMboxAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bob")
	a := testAgent(t, osFS{})
	for range 2 {
		wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Delivered, "2.0.0", "Delivered")
	}
	if got := undated(t, path); got != inMbox+inMbox {
		t.Errorf("got  %q\nwant %q", got, inMbox+inMbox)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left := files(t, filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left %q", left)
	}
}

func TestMboxNullSender(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bob")
	job := mboxJob(path, "A: b\r\n\r\nno end")
	job.Message.Sender = ""
	wantStatus(t, testAgent(t, osFS{}).try(t, job), queue.Delivered, "2.0.0", "")
	want := "From MAILER-DAEMON DATE\nReturn-Path: <>\nDelivered-To: bob@b.example\nA: b\n\nno end\n\n"
	if got := undated(t, path); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A writer that died leaves a part of a message; the next one stands apart.
func TestMboxAfterAPart(t *testing.T) {
	for in, gap := range map[string]string{"x": "\n\n", "x\n": "\n", "x\n\n": "", "\n": "\n"} {
		path := filepath.Join(t.TempDir(), "bob")
		if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, testAgent(t, osFS{}).try(t, mboxJob(path, testBody)), queue.Delivered, "2.0.0", "")
		if got := undated(t, path); got != in+gap+inMbox {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

func TestMboxFaultsAreTakenBack(t *testing.T) {
	for _, c := range []struct {
		op       string
		err      error
		outcome  queue.Outcome
		enhanced string
	}{
		{"open", syscall.EACCES, queue.Deferred, "4.3.5"},
		{"write", syscall.ENOSPC, queue.Deferred, "4.3.1"},
		{"write", syscall.EDQUOT, queue.Deferred, "4.2.2"},
		{"write", errHalf, queue.Deferred, "4.2.0"},
		{"sync", syscall.EIO, queue.Deferred, "4.3.0"},
		{"close", syscall.EIO, queue.Deferred, "4.3.0"},
	} {
		t.Run(fmt.Sprint(c.op, c.err), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bob")
			fsys := &faultFS{}
			a := testAgent(t, fsys)
			wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Delivered, "2.0.0", "")
			fsys.fail = func(op, at string) error {
				if op == c.op && at == path {
					return c.err
				}
				return nil
			}
			wantStatus(t, a.try(t, mboxJob(path, testBody)), c.outcome, c.enhanced, "mbox")
			if got := undated(t, path); c.op != "close" && got != inMbox {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestMboxNameMustBeDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bob")
	a := testAgent(t, &faultFS{fail: func(op, _ string) error {
		if op == "syncdir" {
			return syscall.EIO
		}
		return nil
	}})
	wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Deferred, "4.3.0", "input/output error")
	if got := undated(t, path); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestMboxCannotTakeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bob")
	a := testAgent(t, &faultFS{fail: func(op, at string) error {
		if at == path && (op == "write" || op == "truncate") {
			return syscall.EIO
		}
		return nil
	}})
	wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Deferred, "4.3.0", "may end in a part")
}

func TestMboxOddFiles(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string) error{
		"symlink":  func(p string) error { return os.Symlink(target, p) },
		"hardlink": func(p string) error { return os.Link(target, p) },
		"fifo":     func(p string) error { return syscall.Mkfifo(p, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			wantStatus(t, testAgent(t, osFS{}).try(t, mboxJob(path, testBody)), queue.Deferred, "4.3.5", "mbox")
			if b, err := os.ReadFile(target); err != nil || len(b) != 0 {
				t.Errorf("target %q, %v", b, err)
			}
		})
	}
	wantStatus(t, testAgent(t, osFS{}).try(t, mboxJob("mail/bob", testBody)), queue.Failed, "5.3.5", "not absolute")
	wantStatus(t, testAgent(t, osFS{}).try(t, mboxJob(dir+"/none/bob", testBody)), queue.Deferred, "4.2.0", "no such file")
}

func TestMboxManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bob")
	a := testAgent(t, osFS{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if st := a.try(t, mboxJob(path, testBody)); st.outcome != queue.Delivered {
				t.Errorf("status %+v", st)
			}
		})
	}
	wg.Wait()
	if got := undated(t, path); got != strings.Repeat(inMbox, 20) {
		t.Errorf("got %q", got)
	}
	if len(a.boxes.locks) != 0 {
		t.Errorf("%d locks left", len(a.boxes.locks))
	}
}

func TestMboxLockedByOthers(t *testing.T) {
	t.Run("dot-lock", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "bob")
		if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		a := testAgent(t, osFS{})
		a.opt.Timeout = time.Millisecond
		wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Deferred, "4.2.0", "mailbox is locked")
		old := time.Now().Add(-lockStale - time.Minute)
		if err := os.Chtimes(path+".lock", old, old); err != nil {
			t.Fatal(err)
		}
		a.opt.Timeout = time.Minute
		wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Delivered, "2.0.0", "")
	})
	t.Run("fcntl", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "bob")
		release := lockInChild(t, path)
		a := testAgent(t, osFS{})
		a.opt.Timeout = time.Millisecond
		wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Deferred, "4.2.0", "mailbox is locked")
		release()
		a.opt.Timeout = time.Minute
		wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Delivered, "2.0.0", "")
	})
	t.Run("directory is closed", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "bob")
		a := testAgent(t, &faultFS{fail: func(op, at string) error {
			if op == "open" && at == path+".lock" {
				return syscall.EACCES
			}
			return nil
		}})
		wantStatus(t, a.try(t, mboxJob(path, testBody)), queue.Delivered, "2.0.0", "")
	})
}
