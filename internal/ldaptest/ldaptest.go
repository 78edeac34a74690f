// Package ldaptest runs a real slapd for tests and benchmarks, from its unpacked
// Debian package: nothing is installed. Configuration, database and certificates
// live in one directory that Close removes; it listens on loopback ports and a
// UNIX socket.
//
// The script ./test at the top of the repository unpacks it.
package ldaptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tabard/internal/selfca"
	"tabard/internal/unpacked"
)

// What every directory here has.
const (
	Suffix   = "dc=example,dc=org"
	RootDN   = "cn=admin," + Suffix
	Password = "directory"
)

// How long slapd may take to begin and to end.
const (
	startTimeout = 20 * time.Second
	stopTimeout  = 10 * time.Second
)

// Options of a directory. The zero value has Debian's usual schemas, and
// syncprov, so that changes can be followed.
type Options struct {
	Root    string   // the unpacked package; empty: FindRoot
	Dir     string   // where its directory is made; empty: the system's place for temporary files
	Suffix  string   // empty: Suffix
	Schemas []string // further schema files, in the form of slapd.conf
	NoSync  bool     // without syncprov
	Global  []string // further lines of slapd.conf before the database
	DB      []string // and of the database
}

// Server is a slapd. Its addresses stay the same when it is stopped and started.
type Server struct {
	// URL, TLSURL and SocketURL are where it speaks LDAP: in clear and by
	// StartTLS, over TLS, and on a UNIX socket.
	URL, TLSURL, SocketURL string
	// Suffix is the base of the database, and RootDN who may do anything there.
	Suffix, RootDN string
	// CAFile, CertFile and KeyFile are a private authority and what it issued
	// for 127.0.0.1: the server's, which a client may use too.
	CAFile, CertFile, KeyFile string

	root  string
	dir   string
	slapd *unpacked.Process // nil: stopped
}

// FindRoot returns the directory of the unpacked package: TABARD_SLAPD_ROOT, or
// .scratch/slapd at the top of the repository, or "/" when slapd is installed.
func FindRoot() (string, error) {
	return unpacked.Find("TABARD_SLAPD_ROOT", "slapd", "usr/sbin/slapd")
}

// New makes a directory and starts its server. It holds the entry of the suffix.
func New(ctx context.Context, opt Options) (*Server, error) {
	s := &Server{Suffix: opt.Suffix, root: opt.Root}
	if s.Suffix == "" {
		s.Suffix = Suffix
	}
	s.RootDN = "cn=admin," + s.Suffix
	if s.root == "" {
		root, err := FindRoot()
		if err != nil {
			return nil, err
		}
		s.root = root
	}
	dir, err := os.MkdirTemp(opt.Dir, "slapd")
	if err != nil {
		return nil, err
	}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := s.begin(ctx, opt); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) begin(ctx context.Context, opt Options) error {
	if err := s.certificates(); err != nil {
		return err
	}
	if err := s.configure(opt); err != nil {
		return err
	}
	// A port that was free a moment ago may be taken when slapd binds it.
	var err error
	for range 3 {
		if err = s.addresses(); err != nil {
			return err
		}
		if err = s.Start(ctx); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	return s.Load(ctx, fmt.Sprintf("dn: %s\nobjectClass: domain\n", s.Suffix))
}

func (s *Server) addresses() error {
	for _, u := range []struct {
		url    *string
		scheme string
	}{{&s.URL, "ldap"}, {&s.TLSURL, "ldaps"}} {
		addr, err := unpacked.FreeAddr()
		if err != nil {
			return err
		}
		*u.url = u.scheme + "://" + addr
	}
	s.SocketURL = "ldapi://" + url.QueryEscape(s.path("ldapi"))
	return nil
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) certificates() error {
	s.CAFile, s.CertFile, s.KeyFile = s.path("ca.pem"), s.path("cert.pem"), s.path("key.pem")
	ca, err := selfca.New("Directory CA", time.Now())
	if err != nil {
		return err
	}
	chain, key, err := ca.Issue(selfca.Request{Names: []string{"127.0.0.1", "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)})
	if err != nil {
		return err
	}
	for path, text := range map[string][]byte{s.CAFile: ca.PEM(), s.CertFile: chain, s.KeyFile: key} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) configure(opt Options) error {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, name := range []string{"core", "cosine", "inetorgperson", "nis", "misc"} {
		line("include %s", filepath.Join(s.root, "etc/ldap/schema", name+".schema"))
	}
	for _, path := range opt.Schemas {
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		line("include %s", path)
	}
	line("modulepath %s", filepath.Join(s.root, "usr/lib/ldap"))
	for _, module := range []string{"back_mdb", "syncprov", "memberof"} {
		line("moduleload %s", module)
	}
	line("TLSCACertificateFile %s", s.CAFile)
	line("TLSCertificateFile %s", s.CertFile)
	line("TLSCertificateKeyFile %s", s.KeyFile)
	line("TLSVerifyClient try")
	line("threads 4")
	b.WriteString(strings.Join(append(slices.Clone(opt.Global), ""), "\n"))
	line("database mdb\nsuffix %q\nrootdn %q\nrootpw %s", s.Suffix, s.RootDN, Password)
	line("directory %s\nmaxsize 1073741824\ndbnosync", s.path("db"))
	line("index objectClass,uid,cn,mail eq")
	line("index entryCSN,entryUUID eq")
	b.WriteString(strings.Join(append(slices.Clone(opt.DB), ""), "\n"))
	if !opt.NoSync {
		line("overlay syncprov")
	}
	if err := os.Mkdir(s.path("db"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(s.path("slapd.conf"), b.Bytes(), 0o600)
}

// command prepares a program of the package.
func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.root, program), args...)
	libraries := []string{filepath.Join(s.root, "usr/lib/ldap")}
	if s.root != "/" {
		for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
			found, _ := filepath.Glob(filepath.Join(s.root, pattern)) // the pattern is in order
			libraries = append(libraries, found...)
		}
	}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH=" + strings.Join(libraries, ":")}
	cmd.Dir = s.dir
	return cmd
}

// Fill stops the server, adds the entries of an LDIF to its database without it,
// which is the quick way for very many, and starts it again.
func (s *Server) Fill(ctx context.Context, ldif io.Reader) error {
	if err := s.Stop(); err != nil {
		return err
	}
	cmd := s.command(ctx, "usr/sbin/slapadd", "-q", "-w", "-f", s.path("slapd.conf"))
	cmd.Args[0] = "slapadd" // it is slapd under another name
	cmd.Stdin = ldif
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("slapadd: %w\n%s", err, out)
	}
	return s.Start(ctx)
}

// Start starts a server that was stopped, and returns when it answers.
func (s *Server) Start(ctx context.Context) error {
	urls := fmt.Sprintf("%s/ %s/ %s/", s.URL, s.TLSURL, s.SocketURL)
	cmd := s.command(context.WithoutCancel(ctx), "usr/sbin/slapd", "-f", s.path("slapd.conf"), "-h", urls, "-d", "0")
	cmd.SysProcAttr = endWithParent()
	var err error
	if s.slapd, err = unpacked.Launch(cmd, s.path("log"), nil); err != nil {
		return err
	}
	return s.await(ctx)
}

func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		c, err := s.Connect()
		if err == nil {
			return c.Close()
		}
		select {
		case <-s.slapd.Ended:
			err := s.slapd.Err()
			s.slapd = nil
			return fmt.Errorf("slapd ended: %w\n%s", err, unpacked.LogText(s.path("log")))
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop ends the server as its administrator would.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

// Kill ends the server at once.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) error {
	if s.slapd == nil {
		return nil
	}
	_ = s.slapd.Signal(syscall.SIGCONT) // it may have ended by itself
	if !s.slapd.End(sig, stopTimeout) {
		_ = s.slapd.Signal(syscall.SIGKILL)
		<-s.slapd.Ended
	}
	s.slapd = nil
	return nil
}

// Pause stops the server's process: its sockets stay open, and it says nothing.
func (s *Server) Pause() error {
	if err := s.slapd.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// The signal takes a moment to reach every thread. Where the system does not
	// show them, there is nothing to wait for.
	for deadline := time.Now().Add(stopTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.Pid())) // the pattern is in order
		if !slices.ContainsFunc(tasks, runs) {
			return nil
		}
	}
	return errors.New("slapd does not stop")
}

// runs reports whether a thread is in any state but stopped.
func runs(stat string) bool {
	text, err := os.ReadFile(stat)
	_, state, _ := bytes.Cut(text, []byte(") "))
	return err == nil && !bytes.HasPrefix(state, []byte("T"))
}

// Resume ends a Pause.
func (s *Server) Resume() error { return s.slapd.Signal(syscall.SIGCONT) }

// Pid is the process id of the server.
func (s *Server) Pid() int { return s.slapd.Pid }

// Close stops the server and removes its directory.
func (s *Server) Close() error { return errors.Join(s.Stop(), os.RemoveAll(s.dir)) }

// Connect returns a connection of the root DN.
func (s *Server) Connect() (*ldap.Conn, error) { return s.connectAs(s.RootDN) }

func (s *Server) connectAs(dn string) (*ldap.Conn, error) {
	c, err := ldap.DialURL(s.URL)
	if err != nil {
		return nil, err
	}
	c.SetTimeout(startTimeout)
	if err := c.Bind(dn, Password); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
