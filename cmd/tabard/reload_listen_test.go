package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tabard/bench/proctree"
)

// pids returns the server's processes.
func (s *server) pids() []int {
	s.t.Helper()
	tree, err := proctree.Tree(s.cmd.Process.Pid)
	if err != nil {
		s.t.Fatal(err)
	}
	var pids []int
	for _, p := range tree {
		pids = append(pids, p.PID)
	}
	slices.Sort(pids)
	return pids
}

// files counts the open files of the supervisor.
func (s *server) files() int {
	s.t.Helper()
	all, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "fd"))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(all)
}

// TestReloadMovesListener changes the address of a listener to one that covers
// it, and back, while a session of the first one is open.
func TestReloadMovesListener(t *testing.T) {
	s, got := reloadable(t)
	_, port, _ := net.SplitHostPort(s.smtp)
	s.run()
	t.Cleanup(s.stop)
	d := dialSMTP(t, s.smtp)
	sink := startSink(t, got)
	files := s.files()
	for i, host := range []string{"0.0.0.0", "::", "127.0.0.1"} {
		name := "mx" + strconv.Itoa(i) + ".moved.example"
		text := s.conf(name, sink, net.JoinHostPort(host, port))
		s.write(s.config, text+"table t file:/does/not/exist\nmatch from any for domain <t> action \"out\"\n")
		if err := s.control().Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
			t.Errorf("to %s with a broken table: %v", host, err)
		}
		if b := banner(t, s.smtp); b == "" || strings.Contains(b, name) {
			t.Errorf("after a reload to %s that failed: banner %q", host, b)
		}
		s.write(s.config, text)
		s.reload()
		if b := banner(t, s.smtp); !strings.Contains(b, name) {
			t.Errorf("after the reload to %s: banner %q", host, b)
		}
	}
	d.send("EHLO client.example", "250")
	d.sendMail("a@client.example", "b@example.org", numbered(1))
	d.send("QUIT", "221")
	s.drained()
	got.exactly(t, 1)
	s.oneGeneration()
	eventually(t, "no file is left open", func() bool { return s.files() <= files })
	if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
		_ = l.Close()
		t.Error("another program can listen on the port")
	}
}
