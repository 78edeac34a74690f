package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tabard/internal/selfca"
)

// target is a server under measurement.
type target struct {
	addr string
	pid  int // root of its processes
	ca   string
	dir  string // of its spool
	stop func() error

	begun time.Time // when it was started
}

// during runs f and stops the server.
func (t *target) during(f func() error) error {
	err := f()
	if stopped := t.stop(); err == nil && stopped != nil {
		err = fmt.Errorf("stop: %w", stopped)
	}
	return err
}

// freeAddr returns a loopback address that nothing listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start starts the server called name with its spool below dir.
func (s *settings) start(ctx context.Context, name, dir string, relayTo string) (*target, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	switch name {
	case "null":
		return s.startNull(ctx, nullServer, dir)
	case "null-session":
		return s.startNull(ctx, nullSession, dir)
	case "null-remote":
		return s.startNull(ctx, nullRemote, dir)
	case "files":
		return s.startNull(ctx, filesServer, dir)
	case "tabard":
		return s.startTabard(ctx, dir, relayTo)
	case "tabard-log":
		logged := *s
		logged.events = true
		return logged.startTabard(ctx, dir, relayTo)
	case "postfix-tuned":
		return s.startPostfix(ctx, dir, relayTo, tunedPostfix()...)
	case "postfix":
		return s.startPostfix(ctx, dir, relayTo)
	case "opensmtpd":
		return s.startOpenSMTPD(ctx, dir, relayTo)
	}
	return nil, fmt.Errorf("unknown server %q; want null, null-remote, null-session, files, tabard, tabard-log, postfix, postfix-tuned or opensmtpd", name)
}

func (s *settings) startNull(ctx context.Context, kind, dir string) (*target, error) {
	if err := s.ownCertificate(dir); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, kind, dir, addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := awaitLine(out, "ready"); err != nil {
		return nil, fmt.Errorf("null server: %w", err)
	}
	return &target{addr: addr, pid: cmd.Process.Pid, ca: filepath.Join(dir, "ca.pem"), stop: func() error { return killed(cmd) }}, nil
}

// ownCertificate writes chain.pem, key.pem and ca.pem for a server that takes
// them from files.
func (s *settings) ownCertificate(dir string) error {
	now := time.Now()
	ca, err := selfca.New("bench", now.Add(-time.Hour))
	if err != nil {
		return err
	}
	chain, key, err := ca.Issue(selfca.Request{Key: selfca.KeyType(s.key), Names: []string{"bench.example"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)})
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"chain.pem": chain, "key.pem": key, "ca.pem": ca.PEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// killed ends a command that knows no other end.
func killed(cmd *exec.Cmd) error {
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	_ = cmd.Wait() // says that it was killed
	return nil
}

// tabardConfig accepts mail for bench.example and relays it, or keeps it when
// there is nowhere to relay to. It logs, as a real server does.
const tabardConfig = `hostname bench.example
control %[1]q
table mail sqlite:%[2]s/mail.db
pki <mail>
listen on %[3]s port %[4]s tls
action "out" relay host %[5]q
match from any for domain "bench.example" action "out"
queue sqlite:%[2]s/spool/queue.db
smtp limit max-mails 1000000
smtp limit max-connections 5000
`

func (s *settings) startTabard(ctx context.Context, dir, relayTo string) (*target, error) {
	var args []string
	if relayTo == "" {
		relayTo = "127.0.0.1:9"
		args = append(args, "--pause", "mta")
	}
	return s.runTabard(ctx, dir, func(addr string) string {
		host, port, _ := net.SplitHostPort(addr)
		text := fmt.Sprintf(tabardConfig, filepath.Join(dir, "tabard.sock"), dir, host, port, "smtp://"+relayTo)
		if s.dead != "" {
			text += fmt.Sprintf("action \"dead\" relay host \"smtp://%s\"\nmatch from any for domain \"dead.example\" action \"dead\"\n", s.dead)
		}
		if s.events {
			text += fmt.Sprintf("table log sqlite:%s/log/log.db\nlog sql <log>\n", dir)
		}
		return text
	}, args...)
}

// runTabard builds and starts Tabard with the configuration that text makes for
// the address to listen on.
func (s *settings) runTabard(ctx context.Context, dir string, text func(addr string) string, more ...string) (*target, error) {
	// As in the manual, the queue has a directory of its own, and the event log.
	for _, name := range []string{"spool", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	bin := filepath.Join(dir, "tabard")
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "tabard/cmd/tabard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, out)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args := append([]string{"run", "-c", filepath.Join(dir, "tabard.conf")}, more...)
	if err := os.WriteFile(filepath.Join(dir, "tabard.conf"), []byte(text(addr)+rootProcesses()), 0o600); err != nil {
		return nil, err
	}
	for _, pre := range [][]string{{"migrate"}, {"cert", "add", "bench.example", "--self-signed", "--type", s.key, "--ca-out", filepath.Join(dir, "ca.pem")}} {
		if out, err := exec.CommandContext(ctx, bin, append(pre, "-c", filepath.Join(dir, "tabard.conf"))...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("tabard %s: %w\n%s", strings.Join(pre, " "), err, out)
		}
	}
	log, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stderr = log
	if s.pprof != "" {
		cmd.Env = append(os.Environ(), "TABARD_CPUPROFILE="+s.pprof)
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := awaitListening(ctx, addr); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	return &target{addr: addr, pid: cmd.Process.Pid, ca: filepath.Join(dir, "ca.pem"), begun: begun, stop: func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return errors.Join(cmd.Wait(), log.Close())
	}}, nil
}

// rootProcesses keeps a measurement as root simple: files in a scratch directory
// stay readable.
func rootProcesses() string {
	if os.Getuid() != 0 {
		return ""
	}
	return "process lookup user root\nprocess queue user root\nprocess smtpd user nobody\nprocess mta user nobody\nprocess deliver user root\n"
}

func awaitListening(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func awaitLine(r io.Reader, want string) error {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if sc.Text() == want {
			go func() { _, _ = io.Copy(io.Discard, r) }()
			return nil
		}
	}
	return fmt.Errorf("ended before it said %q: %w", want, sc.Err())
}
