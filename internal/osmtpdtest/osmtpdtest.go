// Package osmtpdtest runs a real OpenSMTPD for tests and benchmarks, from its
// unpacked Debian package: nothing is installed, and no account of the system is
// added or changed.
//
// OpenSMTPD has its places and users compiled in. So it gets a root directory
// and a mount namespace of its own: /etc, /var and the mailboxes are in one
// directory, which Close removes; the system's programs and libraries and the
// package are bound into it, read-only. Linux and root are needed for that, and
// gcc for what Debian's build needs mended (shim/shim.c).
package osmtpdtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tabard/internal/unpacked"
)

// ErrNotAllowed is returned by Start where a mount namespace is not to be had:
// without root, in a container that forbids it, or on a system other than Linux.
var ErrNotAllowed = errors.New("OpenSMTPD needs a mount namespace of its own")

// How long OpenSMTPD may take to begin and to end.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// program is where the package has the daemon.
const program = "usr/sbin/smtpd"

// Options of an OpenSMTPD. The zero value accepts mail for opensmtpd.example in
// clear and keeps it in a Maildir.
type Options struct {
	Root     string // the unpacked package; empty: FindRoot
	Dir      string // where its directory is made; empty: the system's place for temporary files
	Hostname string // empty: opensmtpd.example

	Domains   []string          // kept in the Maildir; empty: the host name
	Listeners []string          // options of each listener, such as `tls pki "mx"`; empty: one without
	Files     map[string][]byte // put below FilesDir, where Lines find them
	Hosts     []string          // further names of 127.0.0.1, the only address it can look up
	CA        []byte            // trust anchors (PEM), in place of the system's
	Lines     []string          // smtpd.conf before the listeners and the rule of Domains
	Args      []string          // further arguments of smtpd, such as -P mta
}

// FilesDir is where OpenSMTPD sees Options.Files.
const FilesDir = "/etc/tabard/"

// Server is a running OpenSMTPD.
type Server struct {
	// Addrs is where it speaks SMTP, one address for each of Options.Listeners.
	Addrs []string

	pkg   string // the unpacked package
	dir   string
	space *namespace
	smtpd *unpacked.Process // nil: not started, or stopped
}

func (s *Server) root() string    { return filepath.Join(s.dir, "root") }
func (s *Server) mailbox() string { return filepath.Join(s.root(), "mail/all") }
func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// FindRoot returns the directory of the unpacked package: TABARD_OPENSMTPD_ROOT,
// or .scratch/opensmtpd at the top of the repository, or "/" when OpenSMTPD is
// installed.
func FindRoot() (string, error) {
	return unpacked.Find("TABARD_OPENSMTPD_ROOT", "opensmtpd", filepath.Join("usr/libexec/opensmtpd", "mail.maildir"))
}

// tester is the part of testing.TB that Begin uses.
type tester interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
	Error(args ...any)
	Log(args ...any)
	Failed() bool
	Cleanup(f func())
}

// Begin starts an OpenSMTPD for a test, and ends it with the test. Where it
// cannot be had (ErrNotAllowed), and only there, the test is skipped with the
// reason.
func Begin(t tester, opt Options) *Server {
	t.Helper()
	s, err := Start(context.Background(), opt)
	if errors.Is(err, ErrNotAllowed) {
		t.Skip("NOT TESTED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Log())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Start starts an OpenSMTPD and returns when each listener answers.
func Start(ctx context.Context, opt Options) (*Server, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: not root", ErrNotAllowed)
	}
	if opt.Root == "" {
		root, err := FindRoot()
		if err != nil {
			return nil, err
		}
		opt.Root = root
	}
	dir, err := os.MkdirTemp(opt.Dir, "opensmtpd")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	s := &Server{pkg: opt.Root, dir: dir}
	if err := s.start(ctx, opt); err != nil {
		text, _ := os.ReadFile(s.logFile())
		return nil, errors.Join(fmt.Errorf("opensmtpd: %w\n%s", err, text), s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, opt Options) error {
	if err := s.makeRoot(opt); err != nil {
		return err
	}
	if err := s.makeShim(ctx); err != nil {
		return err
	}
	var err error
	if s.space, err = newNamespace(s.root(), s.pkg); err != nil {
		return err
	}
	// A port that was free a moment ago may be taken when OpenSMTPD binds it.
	for range 3 {
		if err = s.configure(opt); err != nil {
			return err
		}
		if err = s.launch(opt.Args); err != nil {
			return err
		}
		if err = s.awaitListeners(ctx); err == nil {
			return nil
		}
		s.stop()
		if !strings.Contains(s.Log(), "bind") {
			return err
		}
	}
	return err
}

// launch starts smtpd in the foreground, with a process group of its own.
func (s *Server) launch(args []string) (err error) {
	cmd := s.command(context.Background(), program, append([]string{"-d"}, args...)...)
	s.smtpd, err = unpacked.Launch(cmd, s.logFile(), func() error { return s.space.start(cmd, 0) })
	return err
}

func (s *Server) awaitListeners(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return unpacked.Poll(ctx, s.smtpd.Ended, func() (bool, error) {
		for _, addr := range s.Addrs {
			if err := listening(ctx, addr); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// Close stops OpenSMTPD, all of its processes, and removes its directory.
func (s *Server) Close() error {
	s.stop()
	if space := s.space; space != nil {
		s.space = nil
		if err := space.close(); err != nil {
			return err // removing the directory would remove what is bound below it
		}
	}
	return os.RemoveAll(s.dir)
}

// stop ends the parent, which ends the others, and then whatever is left.
func (s *Server) stop() {
	if s.smtpd != nil {
		s.smtpd.EndGroup(stopTimeout)
		s.smtpd = nil
	}
}

// Pid is the process id of the parent of all other processes.
func (s *Server) Pid() int { return s.smtpd.Pid }

// Log is the text of the log so far.
func (s *Server) Log() string { return unpacked.LogText(s.logFile()) }

// Command runs a program of OpenSMTPD, such as "smtpctl", for this instance, and
// returns what it said.
func (s *Server) Command(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := s.command(ctx, filepath.Join("usr/sbin", name), args...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &out
	// Installed, the program would be of this group by its set-group-ID bit.
	err := s.space.start(cmd, queueID)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Sendmail gives a message to OpenSMTPD, for which its rules must have a match.
// The message has LF line ends.
func (s *Server) Sendmail(ctx context.Context, from string, to []string, message string) error {
	_, err := s.Command(ctx, strings.NewReader(message), "sendmail", append([]string{"-i", "-f", from, "--"}, to...)...)
	return err
}

// Await waits until at least n messages arrived in the Maildir, and returns them
// all, in order of file names. Line ends are LF; OpenSMTPD has put Return-Path,
// Delivered-To and Received in front.
func (s *Server) Await(ctx context.Context, n int) ([]string, error) {
	got, err := unpacked.AwaitMaildir(ctx, s.smtpd.Ended, s.mailbox(), n)
	if err != nil {
		err = fmt.Errorf("opensmtpd: %w", err)
	}
	return got, err
}
