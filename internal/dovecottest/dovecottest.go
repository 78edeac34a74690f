// Package dovecottest runs a real Dovecot as LMTP server for tests, from its
// unpacked Debian packages: nothing is installed, and no account of the system is
// added or changed.
//
// What Dovecot has and writes is in one directory, which Close removes. gcc is
// needed for what is compiled into it (shim/shim.c). As root its processes are of
// users that every system has; otherwise they are the caller's.
package dovecottest

import (
	"context"
	_ "embed" // the shim
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tabard/internal/unpacked"
)

// How long Dovecot may take to begin and to end.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

//go:embed shim/shim.c
var shim string

// Server is a running Dovecot that takes mail by LMTP for its users.
type Server struct {
	Addr   string // host:port where it speaks LMTP
	Socket string // the path where it does so, too

	pkg, dir string
	master   *unpacked.Process // nil: not started, or stopped
}

// FindRoot returns the directory of the unpacked packages: TABARD_DOVECOT_ROOT, or
// .scratch/dovecot at the top of the repository, or "/" when they are installed.
func FindRoot() (string, error) {
	return unpacked.Find("TABARD_DOVECOT_ROOT", "dovecot", "usr/lib/dovecot/lmtp")
}

// tester is the part of testing.TB that Begin uses.
type tester interface {
	Helper()
	Fatal(args ...any)
	Error(args ...any)
	Log(args ...any)
	Failed() bool
	Cleanup(f func())
}

// Begin starts a Dovecot with Maildirs for addresses, and ends it with the test.
func Begin(t tester, addresses ...string) *Server {
	t.Helper()
	s, err := Start(context.Background(), addresses...)
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

// Start starts a Dovecot and returns when it answers.
func Start(ctx context.Context, addresses ...string) (*Server, error) {
	root, err := FindRoot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "dovecot")
	if err != nil {
		return nil, err
	}
	s := &Server{pkg: root, dir: dir, Socket: filepath.Join(dir, "lmtp.sock")}
	if err := s.start(ctx, addresses); err != nil {
		return nil, errors.Join(fmt.Errorf("dovecot: %w\n%s", err, s.Log()), s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, addresses []string) (err error) {
	if err := unpacked.Compile(ctx, shim, s.path("shim.so")); err != nil {
		return err
	}
	// A port that was free a moment ago may be taken when Dovecot binds it.
	for range 3 {
		if s.Addr, err = unpacked.FreeAddr(); err != nil {
			return err
		}
		if err = s.configure(addresses); err != nil {
			return err
		}
		if err = s.launch(); err != nil {
			return err
		}
		if err = s.answers(ctx); err == nil {
			return nil
		}
		s.stop()
		if !strings.Contains(s.Log(), "bind") {
			return err
		}
	}
	return err
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// mailbox is the directory of an address.
func (s *Server) mailbox(addr string) string { return s.path("mail/" + addr) }

// configure writes dovecot.conf and the list of users, and makes the place for
// their mail.
func (s *Server) configure(addresses []string) error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	owner, login, err := accounts()
	if err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(s.path("mail"), 0o755); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(s.path("mail"), owner.uid, owner.gid); err != nil {
			return err
		}
	}
	var users strings.Builder
	for _, addr := range addresses {
		fmt.Fprintf(&users, "%s:::::%s::\n", addr, s.mailbox(addr))
	}
	if err := os.WriteFile(s.path("users"), []byte(users.String()), 0o644); err != nil {
		return err
	}
	conf := strings.NewReplacer("DIR", s.dir, "LIB", filepath.Join(s.pkg, "usr/lib/dovecot"), "OWNER", owner.name, "GROUP", owner.group,
		"LOGIN", login, "HOST", host, "PORT", port, "ENVIRONMENT", strings.Join(s.environment(), " ")).Replace(configuration)
	return os.WriteFile(s.path("dovecot.conf"), []byte(conf), 0o644)
}

const configuration = `protocols = lmtp
ssl = no
listen = HOST
base_dir = DIR/run
state_dir = DIR/run
log_path = DIR/log
libexec_dir = LIB
mail_plugin_dir = LIB/modules
import_environment = ENVIRONMENT
default_internal_user = OWNER
default_internal_group = GROUP
default_login_user = LOGIN
mail_uid = OWNER
mail_gid = GROUP
first_valid_uid = 0
first_valid_gid = 0
mail_location = maildir:~
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = passwd-file
  args = DIR/users
}
service lmtp {
  inet_listener lmtp {
    address = HOST
    port = PORT
  }
  unix_listener DIR/lmtp.sock {
    mode = 0666
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
`

type account struct {
	name, group string
	uid, gid    int
}

// accounts returns who has the mail, and who is for logins, which nobody makes.
func accounts() (owner account, login string, err error) {
	name, login := "nobody", "daemon"
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return account{}, "", err
		}
		name, login = u.Username, u.Username
	}
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, "", err
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		return account{}, "", err
	}
	owner = account{name: name, group: g.Name}
	if _, err := fmt.Sscan(u.Uid+" "+u.Gid, &owner.uid, &owner.gid); err != nil {
		return account{}, "", err
	}
	return owner, login, nil
}

// environment is what each of its programs needs to find its parts.
func (s *Server) environment() []string {
	own := filepath.Join(s.pkg, "usr/lib/dovecot")
	libs := []string{own, filepath.Join(own, "modules/old-stats")}
	for _, dir := range unpacked.Libraries(s.pkg) {
		libs = append(libs, filepath.Join(s.pkg, dir))
	}
	return []string{"LD_LIBRARY_PATH=" + strings.Join(libs, ":"), "LD_PRELOAD=" + s.path("shim.so"), "TABARD_DOVECOT_ROOT=" + s.pkg}
}

// launch starts the master process by the program that reads its configuration:
// where that program is, is compiled in too.
func (s *Server) launch() (err error) {
	conf := s.path("dovecot.conf")
	cmd := exec.Command(filepath.Join(s.pkg, "usr/bin/doveconf"), "-f", "service=master", "-c", conf, "-p", "-e",
		filepath.Join(s.pkg, "usr/sbin/dovecot"), "-F", "-c", conf)
	cmd.Env = append(s.environment(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.master, err = unpacked.Launch(cmd, s.path("log"), nil)
	return err
}

// answers waits for the greeting, and so for the first of its LMTP processes.
func (s *Server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return unpacked.Poll(ctx, s.master.Ended, func() (bool, error) {
		err := unpacked.Greeted(ctx, s.Addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return false, err
		}
		return true, err
	})
}

// Close stops Dovecot, all of its processes, and removes its directory.
func (s *Server) Close() error {
	s.stop()
	return os.RemoveAll(s.dir)
}

func (s *Server) stop() {
	if s.master != nil {
		// By itself it waits for its children for seconds.
		_ = syscall.Kill(-s.master.Pid, syscall.SIGKILL)
		s.master.EndGroup(stopTimeout)
		s.master = nil
	}
}

// Log is the text of the log so far.
func (s *Server) Log() string { return unpacked.LogText(s.path("log")) }

// Break makes the mailbox of an address one that mail cannot be put into: the
// server takes the recipient, and refuses the message for the moment.
func (s *Server) Break(addr string) error { return os.WriteFile(s.mailbox(addr), nil, 0o644) }

// Messages returns what is in the Maildir of an address, in order of arrival.
// Line ends are LF; Dovecot has put Return-Path, Delivered-To and Received in
// front.
func (s *Server) Messages(addr string) ([]string, error) { return unpacked.Maildir(s.mailbox(addr)) }
