// Package posttest runs a real Postfix for tests and benchmarks, from its
// unpacked Debian package: nothing is installed, and no account of the system
// is added or changed. Configuration, queue, data and mailboxes live in one
// directory that Close removes; it listens on loopback ports only.
//
// Postfix wants to be started by root, and gives up its privileges by itself.
// The script ./test at the top of the repository unpacks it.
package posttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tabard/internal/unpacked"
)

// ErrNotRoot is returned by Start when the process is not root.
var ErrNotRoot = errors.New("postfix wants to be started by root")

// Life is how long a Postfix lives when nobody stops it: a test program that is
// killed leaves nothing behind for longer.
const Life = 30 * time.Minute

// How long Postfix may take to begin and to end.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
)

// Options of a Postfix. The zero value accepts mail for postfix.example in
// clear and keeps it in a Maildir.
type Options struct {
	Root     string // the unpacked package; empty: FindRoot
	Dir      string // where its directory is made; empty: the system's place for temporary files
	Hostname string // myhostname; empty: postfix.example

	Domains  []string // kept in the Maildir; empty: the host name
	CertFile string   // certificate chain (PEM); with KeyFile: STARTTLS is offered
	KeyFile  string
	TLS      string // smtpd_tls_security_level; empty: "may" with a certificate, else "none"
	CAFile   string // trust anchors, as client and for client certificates

	Relayhost string // "[127.0.0.1]:2525": everything else goes there; empty: nowhere
	ClientTLS string // smtp_tls_security_level towards it; empty: "may"
	Discard   bool   // mail for Domains is thrown away after it was queued

	Listeners []string          // options of further ports, as in master.cf: "-o smtpd_tls_wrappermode=yes"
	Users     map[string]string // who may log in by PLAIN, with their passwords; nil: nobody can

	Main   []string // further lines of main.cf, which override ours
	Master []string // further lines of master.cf
}

// Server is a running Postfix.
type Server struct {
	// Addr is where it speaks SMTP.
	Addr string
	// Addrs are Addr and the addresses of Options.Listeners.
	Addrs []string

	root   string
	dir    string
	master *unpacked.Process // nil: not started, or stopped
	logins *logins           // nil: none
}

// FindRoot returns the directory of the unpacked package: TABARD_POSTFIX_ROOT,
// or .scratch/postfix at the top of the repository, or "/" when Postfix is
// installed.
func FindRoot() (string, error) {
	return unpacked.Find("TABARD_POSTFIX_ROOT", "postfix", filepath.Join(daemons, "master"))
}

// Start starts a Postfix and returns when it answers.
func Start(ctx context.Context, opt Options) (*Server, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if opt.Root == "" {
		root, err := FindRoot()
		if err != nil {
			return nil, err
		}
		opt.Root = root
	}
	dir, err := os.MkdirTemp(opt.Dir, "postfix")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	s := &Server{root: opt.Root, dir: dir}
	if opt.Users != nil {
		if s.logins, err = serveLogins(s.authSocket(), opt.Users); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.start(ctx, opt); err != nil {
		text, _ := os.ReadFile(s.logFile())
		return nil, errors.Join(fmt.Errorf("postfix: %w\n%s", err, text), s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, opt Options) error {
	// A port that was free a moment ago may be taken when Postfix binds it.
	var err error
	for range 3 {
		if err = s.chooseAddrs(1 + len(opt.Listeners)); err != nil {
			return err
		}
		if err = s.configure(opt); err != nil {
			return err
		}
		if err = s.launch(); err != nil {
			return err
		}
		if err = s.awaitBanner(ctx); err == nil {
			return nil
		}
		s.stop()
		if unpacked.Greeted(ctx, s.Addr) != nil {
			break // nobody took the port: it is something else
		}
	}
	// What is wrong before there is a log goes to syslog only, except from the
	// programs for people.
	why, _ := s.Command(ctx, nil, "postsuper", "-p")
	return fmt.Errorf("%w\n%s", err, why)
}

// chooseAddrs finds free addresses, all different.
func (s *Server) chooseAddrs(n int) error {
	s.Addrs = nil
	for len(s.Addrs) < n {
		addr, err := unpacked.FreeAddr()
		if err != nil {
			return err
		}
		if !slices.Contains(s.Addrs, addr) {
			s.Addrs = append(s.Addrs, addr)
		}
	}
	s.Addr = s.Addrs[0]
	return nil
}

// launch starts the master in the foreground; it makes a session of its own.
func (s *Server) launch() (err error) {
	cmd := s.command(context.Background(), filepath.Join(daemons, "master"),
		"-s", "-c", s.config(), "-e", fmt.Sprint(int(Life.Seconds())))
	cmd.SysProcAttr = endWithParent()
	s.master, err = unpacked.Launch(cmd, s.logFile(), nil)
	return err
}

// awaitBanner waits until Postfix greets.
func (s *Server) awaitBanner(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return unpacked.Poll(ctx, s.master.Ended, func() (bool, error) {
		err := unpacked.Greeted(ctx, s.Addr)
		return err == nil, err
	})
}

// Close stops Postfix, all of its processes, and removes its directory.
func (s *Server) Close() error {
	s.stop()
	if s.logins != nil {
		s.logins.close()
		s.logins = nil
	}
	return os.RemoveAll(s.dir)
}

// stop ends master, which ends its children, and then whatever is left of them:
// they share the session and process group that master made.
func (s *Server) stop() {
	if s.master != nil {
		s.master.EndGroup(stopTimeout)
		s.master = nil
	}
}

// Pid is the process id of master, the parent of all others.
func (s *Server) Pid() int { return s.master.Pid }

// Log is the text of the log so far.
func (s *Server) Log() string { return unpacked.LogText(s.logFile()) }

// command prepares a program of the package.
func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.root, program), args...)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"MAIL_CONFIG=" + s.config(),
		"LD_LIBRARY_PATH=" + libraries(s.root),
	}
	cmd.Dir = s.dir
	return cmd
}

// Command runs a program of Postfix, such as "postqueue", for this instance,
// and returns what it said.
func (s *Server) Command(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := s.command(ctx, filepath.Join(commands, name), args...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Sendmail gives a message to Postfix, which delivers it to Domains or hands it
// to Relayhost. The message has LF line ends.
func (s *Server) Sendmail(ctx context.Context, from string, to []string, message string) error {
	_, err := s.Command(ctx, strings.NewReader(message), "sendmail", append([]string{"-i", "-f", from, "--"}, to...)...)
	return err
}
