package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test binary behave as tabard itself, so that the daemon's
// processes in these tests are instrumented by the race detector too.
const asProgram = "TABARD_TEST_AS_PROGRAM"

// waitLong bounds every wait in these tests; it is no measure of anything.
const waitLong = 60 * time.Second

// rounds is how often a test repeats what happens under load: n times, and as often
// as long says when ./test --long asks for it.
func rounds(n, long int) int {
	if os.Getenv("TABARD_LONG") != "" {
		return long
	}
	return n
}

// logBuffer collects a daemon's log and lets tests wait for a line.
type logBuffer struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  bytes.Buffer
}

func newLogBuffer() *logBuffer {
	l := &logBuffer{}
	l.cond = sync.NewCond(&l.mu)
	return l
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cond.Broadcast()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// await blocks until the log matches re, and returns its submatches.
func (l *logBuffer) await(t *testing.T, re string) []string {
	t.Helper()
	want := regexp.MustCompile(re)
	deadline := time.Now().Add(waitLong)
	wake := time.AfterFunc(waitLong, l.cond.Broadcast)
	defer wake.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if m := want.FindStringSubmatch(l.buf.String()); m != nil {
			return m
		}
		if time.Now().After(deadline) {
			t.Fatalf("log never matched %q:\n%s", re, l.buf.String())
		}
		l.cond.Wait()
	}
}

// server is a running tabard with its own directory.
type server struct {
	t        *testing.T
	dir      string
	config   string
	smtp     string
	smtps    string
	submit   string
	user     string
	password string
	out, log *logBuffer
	cmd      *exec.Cmd
	done     chan struct{}
	exit     error
	prepare  func(*exec.Cmd) // changes how the server is started; may be nil
}

// program returns a command that runs tabard.
func program(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// tabard runs a subcommand to its end and returns its output.
func tabard(t *testing.T, args ...string) string {
	t.Helper()
	out, err := program(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("tabard %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// freeAddr returns a loopback address that nothing listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// startQuickstart starts `tabard quickstart` in a new directory and waits until it
// listens. It is stopped when the test ends.
func startQuickstart(t *testing.T) *server {
	t.Helper()
	return quickstartIn(t, filepath.Join(t.TempDir(), "q"), nil)
}

// quickstartIn is startQuickstart in a directory that does not exist yet.
func quickstartIn(t *testing.T, dir string, prepare func(*exec.Cmd)) *server {
	t.Helper()
	s := &server{t: t, dir: dir, config: filepath.Join(dir, "tabard.conf"), smtp: freeAddr(t), smtps: freeAddr(t), submit: freeAddr(t), prepare: prepare}
	s.start("quickstart", "--smtp", s.smtp, "--smtps", s.smtps, "--submission", s.submit, dir)
	s.user = s.out.await(t, `(?m)^user: (\S+)$`)[1]
	s.password = s.out.await(t, `(?m)^password: (\S+)$`)[1]
	s.ready()
	t.Cleanup(s.stop)
	return s
}

// edit stops the server, lets f change its configuration, and runs it again.
func (s *server) edit(f func(text string) string) {
	s.t.Helper()
	s.stop()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(f(string(text))), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.run()
}

// run starts the server on its configuration and waits until it listens.
func (s *server) run() {
	s.t.Helper()
	s.start("run", "-c", s.config)
	s.ready()
}

func (s *server) ready() { s.t.Helper(); s.log.await(s.t, `tabard/supervisor\[\d+\]: ready`) }

func (s *server) start(args ...string) {
	s.t.Helper()
	s.out, s.log = newLogBuffer(), newLogBuffer()
	s.cmd = program(args...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.log
	if s.prepare != nil {
		s.prepare(s.cmd)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	go func() {
		s.exit = s.cmd.Wait()
		_, _ = fmt.Fprintf(s.log, "program ended: %v\n", s.exit)
		close(done)
	}()
}

// stop ends the server with SIGTERM and waits for it.
func (s *server) stop() {
	s.t.Helper()
	select {
	case <-s.done:
		return
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(waitLong):
		_ = s.cmd.Process.Kill()
		s.t.Errorf("tabard did not stop on SIGTERM:\n%s", s.log)
	}
	if s.exit != nil {
		s.t.Errorf("tabard ended with %v:\n%s", s.exit, s.log)
	}
}

// eventually polls what cannot be awaited as an event: another process' files.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLong)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}

// maildir returns the messages in the Maildir of user@domain.
func (s *server) maildir(addr string) []string {
	s.t.Helper()
	user, domain, _ := strings.Cut(addr, "@")
	files, err := filepath.Glob(filepath.Join(s.dir, "mail", domain, user, "new", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	var messages []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		messages = append(messages, string(text))
	}
	return messages
}

// dialogue speaks SMTP by hand.
type dialogue struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
}

func dialSMTP(t *testing.T, addr string) *dialogue {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, waitLong)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	d := &dialogue{t, conn, bufio.NewReader(conn)}
	d.expect("220")
	return d
}

// expect reads one reply and checks its code.
func (d *dialogue) expect(code string) string {
	d.t.Helper()
	_ = d.conn.SetDeadline(time.Now().Add(waitLong))
	var reply strings.Builder
	for {
		line, err := d.br.ReadString('\n')
		reply.WriteString(line)
		if err != nil {
			d.t.Fatalf("waiting for %s: %v after %q", code, err, reply.String())
		}
		if len(line) > 3 && line[3] == ' ' {
			if !strings.HasPrefix(line, code) {
				d.t.Fatalf("got %q, want %s", reply.String(), code)
			}
			return reply.String()
		}
	}
}

func (d *dialogue) send(line, code string) string {
	d.t.Helper()
	d.write(line + "\r\n")
	return d.expect(code)
}

func (d *dialogue) write(text string) {
	d.t.Helper()
	if _, err := d.conn.Write([]byte(text)); err != nil {
		d.t.Fatal(err)
	}
}
