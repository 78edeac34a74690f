package osmtpdtest

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/textproto"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const text = "From: a@a.example\nTo: bob@opensmtpd.example\nSubject: one\nDate: Mon, 2 Jan 2006 15:04:05 +0000\nMessage-Id: <1@a.example>\n\nhello\n.\n"

// It keeps what is given to it on its socket, and Close leaves nothing: no
// process, no file, and no mount that anybody else would have seen.
func TestKeepsMailAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := Begin(t, Options{Dir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Sendmail(ctx, "a@a.example", []string{"bob@opensmtpd.example"}, text); err != nil {
		t.Fatal(err)
	}
	got, err := s.Await(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Return-Path: <a@a.example>\n", "Delivered-To: bob@opensmtpd.example\n", "by opensmtpd.example (OpenSMTPD) with ", "\n\nhello\n.\n"} {
		if !strings.Contains(got[0], want) {
			t.Errorf("no %q in %q", want, got[0])
		}
	}
	if out, err := s.Command(ctx, nil, "smtpctl", "show", "stats"); err != nil || !strings.Contains(out, "mda.envelope") {
		t.Errorf("smtpctl: %q, %v", out, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("its mounts are seen here:\n%s", mounts)
	}
	group := s.Pid()
	if err := syscall.Kill(-group, 0); err != nil {
		t.Errorf("its processes: %v", err)
	}
	s.stop()
	if err := syscall.Kill(-group, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a process is left: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if conn, err := net.Dial("tcp", s.Addrs[0]); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v %v", conn, err)
	}
}

// Two of them at once have different directories and ports, and each listener
// its own options.
func TestListeners(t *testing.T) {
	a := Begin(t, Options{Hostname: "a.example", Listeners: []string{"", `hostname "second.example"`}})
	b := Begin(t, Options{Hostname: "b.example"})
	for addr, want := range map[string]string{a.Addrs[0]: "a.example ESMTP", a.Addrs[1]: "second.example ESMTP", b.Addrs[0]: "b.example ESMTP"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, greeting, err := textproto.NewReader(bufio.NewReader(conn)).ReadResponse(220)
		if err != nil || !strings.HasPrefix(greeting, want) {
			t.Errorf("%s greets %q, %v; want %q", addr, greeting, err, want)
		}
		_ = conn.Close()
	}
}

// An OpenSMTPD that cannot run says why, and leaves nothing.
func TestBadConfiguration(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(t.Context(), Options{Dir: dir, Lines: []string{"nonsense"}})
	if errors.Is(err, ErrNotAllowed) {
		Begin(t, Options{}) // skips, and says why
	}
	if s != nil || err == nil || !strings.Contains(err.Error(), "smtpd.conf:1: syntax error") {
		t.Errorf("error %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := Start(t.Context(), Options{Root: t.TempDir()}); err == nil || errors.Is(err, ErrNotAllowed) {
		t.Errorf("without a package: %v", err)
	}
}
