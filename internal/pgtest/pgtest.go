// Package pgtest runs a real PostgreSQL for tests and benchmarks: a private
// cluster in a directory of its own, which Close removes. It listens on one
// loopback port and on a UNIX socket in that directory, and everybody is let in
// as superuser "tabard".
//
// PostgreSQL refuses to run as root: then it runs as postgres, or as nobody. The
// script ./test at the top of the repository installs it.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tabard/internal/selfca"
	"tabard/internal/unpacked"
)

// User is the superuser of every cluster.
const User = "tabard"

// How long a server may take to begin and to end.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
)

// Options of a cluster. The zero value is quick and forgets what it was told
// when the machine crashes.
type Options struct {
	Dir      string   // where its directory is made; empty: the system's place for temporary files
	Durable  bool     // sync to disk, as in earnest
	TLS      bool     // accept TLS as localhost and 127.0.0.1; see Server.CAFile
	Settings []string // lines of postgresql.conf, which override ours
	HBA      []string // lines of pg_hba.conf, before ours
}

// Server is a cluster.
type Server struct {
	Port      int    // on 127.0.0.1
	SocketDir string // holds the UNIX socket
	CAFile    string // the authority that signed the server's certificate (PEM), with Options.TLS

	bin  string
	dir  string
	own  *owner
	proc *unpacked.Process // nil while it does not run
}

// FindBin returns the directory of initdb and postgres: TABARD_PG_BIN, or one
// from PATH, or the newest of those where Debian puts them.
func FindBin() (string, error) {
	places := append([]string{os.Getenv("TABARD_PG_BIN")}, filepath.SplitList(os.Getenv("PATH"))...)
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.SortFunc(debian, func(a, b string) int { return release(b) - release(a) })
	for _, dir := range append(places, debian...) {
		if dir == "" {
			continue
		}
		_, ierr := os.Stat(filepath.Join(dir, "initdb"))
		_, perr := os.Stat(filepath.Join(dir, "postgres"))
		if ierr == nil && perr == nil {
			return filepath.Abs(dir)
		}
	}
	return "", errors.New("no PostgreSQL (initdb, postgres): run ./test, which installs it")
}

func release(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // what is no number comes last
	return n
}

// Start makes a cluster, starts its server, and returns when that answers.
func Start(ctx context.Context, opt Options) (*Server, error) {
	bin, err := FindBin()
	if err != nil {
		return nil, err
	}
	own, err := findOwner()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(opt.Dir, "tabard-pg")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	s := &Server{SocketDir: dir, bin: bin, dir: dir, own: own}
	if err := s.create(ctx, opt); err != nil {
		return nil, errors.Join(fmt.Errorf("postgresql: %w\n%s", err, s.Log()), s.Close())
	}
	return s, nil
}

func (s *Server) create(ctx context.Context, opt Options) error {
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.own.take(s.dir); err != nil {
		return err
	}
	initdb := s.own.command(ctx, filepath.Join(s.bin, "initdb"), "--no-sync", "--auth=trust", "--username="+User,
		"--encoding=UTF8", "--locale=C.UTF-8", "--pgdata="+s.data())
	initdb.Dir = s.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := s.configure(opt); err != nil {
		return err
	}
	// A port that was free a moment ago may be taken when PostgreSQL binds it.
	var err error
	for range 3 {
		if s.Port, err = freePort(); err != nil {
			return err
		}
		if err = s.Launch(ctx); err == nil || !strings.Contains(s.Log(), "Address already in use") {
			return err
		}
	}
	return err
}

func (s *Server) data() string    { return filepath.Join(s.dir, "data") }
func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// Log is what the server said so far.
func (s *Server) Log() string { return unpacked.LogText(s.logFile()) }

func (s *Server) configure(opt Options) error {
	lines := []string{
		"listen_addresses = '127.0.0.1'",
		"unix_socket_directories = '" + s.SocketDir + "'",
		"max_connections = 60",
		"shared_buffers = '64MB'",
		"timezone = 'UTC'",
		"log_timezone = 'UTC'",
	}
	if !opt.Durable {
		// What was committed outlives Kill, which loses no page of the system.
		lines = append(lines, "fsync = off", "full_page_writes = off")
	}
	if opt.TLS {
		more, err := s.certify()
		if err != nil {
			return err
		}
		lines = append(lines, more...)
	}
	hba := append(slices.Clone(opt.HBA),
		"local all all trust",
		// A role that is to prove itself is a member of this one.
		"host all +with_password 127.0.0.1/32 scram-sha-256",
		"host all all 127.0.0.1/32 trust")
	for name, text := range map[string][]string{"postgresql.conf": append(lines, opt.Settings...), "pg_hba.conf": hba} {
		// The files are there, and the owner's.
		if err := os.WriteFile(filepath.Join(s.data(), name), []byte(strings.Join(text, "\n")+"\n"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// certify makes an authority and the server's certificate.
func (s *Server) certify() ([]string, error) {
	now := time.Now()
	ca, err := selfca.New("pgtest", now.Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	chain, key, err := ca.Issue(selfca.Request{Names: []string{"localhost", "127.0.0.1"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 1)})
	if err != nil {
		return nil, err
	}
	s.CAFile = filepath.Join(s.dir, "ca.pem")
	for name, text := range map[string][]byte{s.CAFile: ca.PEM(), filepath.Join(s.dir, "server.pem"): chain} {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return nil, err
		}
	}
	keyFile := filepath.Join(s.dir, "server.key")
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		return nil, err
	}
	if err := s.own.take(keyFile); err != nil {
		return nil, err
	}
	return []string{"ssl = on", "ssl_cert_file = '" + filepath.Join(s.dir, "server.pem") + "'", "ssl_key_file = '" + keyFile + "'"}, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// Launch starts the server that was stopped or killed, on the port that it had,
// and returns when it answers.
func (s *Server) Launch(ctx context.Context) error {
	if s.proc != nil {
		return errors.New("the server runs already")
	}
	cmd := s.own.command(context.Background(), filepath.Join(s.bin, "postgres"), "-D", s.data(), "-p", strconv.Itoa(s.Port))
	cmd.Dir = s.dir
	p, err := unpacked.Launch(cmd, s.logFile(), nil)
	if err != nil {
		return err
	}
	s.proc = p
	if err := s.await(ctx); err != nil {
		return errors.Join(err, s.Kill())
	}
	return nil
}

// await waits until the server lets somebody in.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	at := fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", s.SocketDir, s.Port, User)
	for {
		conn, err := pgx.Connect(ctx, at)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.proc.Ended:
			return fmt.Errorf("the server ended: %v", s.proc.Err())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close stops the server and removes its directory.
func (s *Server) Close() error {
	return errors.Join(s.quit(), os.RemoveAll(s.dir))
}

// owner is who the cluster belongs to; nil is whoever we are.
type owner struct{ uid, gid uint32 }

func findOwner() (*owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		return &owner{uint32(uid), uint32(gid)}, errors.Join(uerr, gerr)
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

func (o *owner) take(path string) error {
	if o == nil {
		return nil
	}
	return os.Chown(path, int(o.uid), int(o.gid))
}

// command prepares a program that runs as the owner.
func (o *owner) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = processAttr(o)
	return cmd
}
