package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tabard/bench/load"
)

// reloadable is a server whose configuration is a list of lines.
func reloadable(t *testing.T) (*server, *receipts) {
	t.Helper()
	s, r := newServer(t), newReceipts()
	s.write(s.config, s.conf("mx1.example", startSink(t, r), s.smtp))
	return s, r
}

// conf is a configuration that relays everything for example.org to sink.
func (s *server) conf(host, sink string, listen ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%scontrol \"%s\"\nqueue \"sqlite:%s\"\nhostname \"%s\"\nresolver 127.0.0.1:1\n",
		asRoot(), filepath.Join(s.dir, "control.sock"), filepath.Join(s.dir, "queue.db"), host)
	for _, l := range listen {
		h, port, _ := net.SplitHostPort(l)
		fmt.Fprintf(&b, "listen on %s port %s\n", h, port)
	}
	fmt.Fprintf(&b, "action \"out\" relay host %s\nmatch from any for domain \"example.org\" action \"out\"\n", sink)
	return b.String()
}

// tabardFails runs a subcommand that must fail, and returns what it printed.
func tabardFails(t *testing.T, code int, args ...string) string {
	t.Helper()
	cmd := program(args...)
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("tabard %s: %v, want exit code %d\n%s", strings.Join(args, " "), err, code, out)
	}
	return string(out)
}

// banner is what a new connection is greeted with.
func banner(t *testing.T, addr string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, waitLong)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	line := make([]byte, 200)
	n, _ := conn.Read(line)
	return string(line[:n])
}

// TestReloadKeepsSessions reloads while a session is in the middle of a message.
func TestReloadKeepsSessions(t *testing.T) {
	s, got := reloadable(t)
	removed, added := s.smtp, freeAddr(t)
	s.run()
	t.Cleanup(s.stop)
	d := dialSMTP(t, removed)
	d.send("EHLO client.example", "250")
	d.send("MAIL FROM:<a@client.example>", "250")

	sink := startSink(t, got)
	text := strings.Replace(s.conf("mx2.example", sink, added), "example.org", "example.net", 1)
	s.write(s.config, text)
	if out := tabard(t, "-c", s.config, "reload"); out != "reloaded\n" {
		t.Errorf("reload says %q", out)
	}
	d.send("RCPT TO:<b@example.net>", "550")
	d.send("RCPT TO:<b@example.org>", "250") // by the old rules
	d.send("DATA", "354")
	d.send("Subject: one\r\n\r\nbody\r\n.", "250")
	eventually(t, "the removed listener is closed", func() bool { return banner(t, removed) == "" })
	if b := banner(t, added); !strings.Contains(b, "mx2.example") {
		t.Errorf("banner %q", b)
	}
	n := dialSMTP(t, added)
	n.send("EHLO client.example", "250")
	n.send("MAIL FROM:<a@client.example>", "250")
	n.send("RCPT TO:<b@example.org>", "550")
	n.send("RCPT TO:<b@example.net>", "250") // by the new ones
	d.send("RSET", "250")
	if st := tabard(t, "-c", s.config, "status"); !strings.Contains(st, "smtpd (old 1)") || !strings.Contains(st, "configuration: "+s.config) {
		t.Errorf("status:\n%s", st)
	}
	d.send("QUIT", "221")
	eventually(t, "the old processes end", func() bool { return !strings.Contains(tabard(t, "-c", s.config, "status"), "(old 1)") })
}

// TestReloadRefusesFaults puts faults into the file; the old one stays.
func TestReloadRefusesFaults(t *testing.T) {
	s, _ := reloadable(t)
	s.run()
	t.Cleanup(s.stop)
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	_, busyPort, _ := net.SplitHostPort(busy.Addr().String())
	_, ownPort, _ := net.SplitHostPort(s.smtp)
	for name, c := range map[string]struct{ text, want string }{
		"a parse error":        {string(good) + "lisen on lo\n", s.config + ":"},
		"a socket in use":      {string(good) + "listen on 127.0.0.1 port " + busyPort + "\n", "address already in use"},
		"no such table file":   {string(good) + "table t file:/does/not/exist\nmatch from any for domain <t> action \"out\"\n", "/does/not/exist"},
		"no such action":       {strings.Replace(string(good), "action \"out\"\n", "action \"nosuch\"\n", 1), "nosuch"},
		"one in its own way":   {string(good) + "listen on 0.0.0.0 port " + ownPort + "\n", "address already in use"},
		"what needs a restart": {strings.Replace(string(good), "queue.db", "other.db", 1), "a change of queue needs a restart"},
	} {
		s.write(s.config, c.text)
		before := s.pids()
		if out := tabardFails(t, exConfig, "-c", s.config, "reload"); !strings.Contains(out, c.want) {
			t.Errorf("%s: reload says %q", name, out)
		}
		if st := tabard(t, "-c", s.config, "status"); !strings.Contains(st, c.want) {
			t.Errorf("%s: status says\n%s", name, st)
		}
		if b := banner(t, s.smtp); !strings.Contains(b, "mx1.example") {
			t.Errorf("%s: banner %q", name, b)
		}
		s.log.await(t, "the old one stays in force.*"+regexp.QuoteMeta(c.want))
		eventually(t, name+": the processes are the same", func() bool { return slices.Equal(s.pids(), before) })
	}
	s.write(s.config, strings.Replace(string(good), "mx1.example", "mx3.example", 1))
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "SIGHUP reloads", func() bool { return strings.Contains(banner(t, s.smtp), "mx3.example") })
	if st := tabard(t, "-c", s.config, "status"); strings.Contains(st, "failed") {
		t.Errorf("a fault is left:\n%s", st)
	}
}

// TestReloadUnderLoad reloads again and again while mail flows in and out.
func TestReloadUnderLoad(t *testing.T) {
	s, got := reloadable(t)
	s.run()
	t.Cleanup(s.stop)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s.reload() // what is opened once is open
	s.oneGeneration()
	files, processes := s.files(), len(s.pids())
	acked := &acks{seen: map[int64]bool{}}
	var res load.Result
	var wg sync.WaitGroup
	wg.Go(func() {
		res, _ = load.Run(ctx, load.Options{
			Addr: s.smtp, Sessions: 5, PerConn: 3, Size: crashSize, From: "load@client.example", To: "n%d@example.org",
			Acked: acked.add, Retry: true,
		})
	})
	reloads := rounds(7, 20)
	for range reloads {
		s.flows(map[string]*acks{"all": acked})
		s.reload()
	}
	s.flows(map[string]*acks{"all": acked})
	stop()
	wg.Wait()
	s.drained()
	if res.Errors != 0 {
		t.Errorf("%d sessions were refused or cut", res.Errors)
	}
	if n := got.lacking(acked.seen); n > 0 || len(got.corrupt) > 0 || got.duplicates() > 0 {
		t.Errorf("%d messages are lost, %d corrupt, %d duplicated", n, len(got.corrupt), got.duplicates())
	}
	if strings.Contains(s.log.String(), "cut off") || strings.Contains(s.log.String(), "did not stop") {
		t.Errorf("something was cut off:\n%s", s.log)
	}
	s.oneGeneration()
	if n := len(s.pids()); n != processes {
		t.Errorf("%d processes, %d before: %v", n, processes, s.pids())
	}
	eventually(t, "no file is left open", func() bool { return s.files() <= files })
	t.Logf("%d messages over %d reloads", res.Acked, reloads)
}
