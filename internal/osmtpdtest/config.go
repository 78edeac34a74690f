package osmtpdtest

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"tabard/internal/unpacked"
)

// Numbers of the users that only OpenSMTPD's own /etc/passwd knows. They own
// nothing elsewhere, and are no users of a system that Debian set up.
const (
	daemonID = 60900 + iota
	queueID
	boxID
)

// Places within the root directory.
const (
	empty = "var/lib/opensmtpd/empty" // the daemon's chroot and home
	spool = "var/spool/smtpd"
	roots = "etc/ssl/certs/ca-certificates.crt"
)

// shim is a library that mends what Debian's build cannot do; it says what.
//
//go:embed shim/shim.c
var shim string

// shimFile is where OpenSMTPD sees it.
const shimFile = "/shim.so"

// makeShim compiles the library.
func (s *Server) makeShim(ctx context.Context) error {
	return unpacked.Compile(ctx, shim, filepath.Join(s.root(), shimFile))
}

// makeRoot makes the directories with the owners and modes that OpenSMTPD
// demands, and the files of /etc that it and the C library read.
func (s *Server) makeRoot(opt Options) error {
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	for _, d := range []struct {
		name  string
		mode  os.FileMode
		owner int
	}{
		{".", 0o755, 0}, {"etc", 0o755, 0}, {FilesDir, 0o755, 0}, {filepath.Dir(roots), 0o755, 0}, {"run", 0o755, 0}, {"tmp", os.ModeSticky | 0o777, 0},
		{empty, 0o755, 0}, {spool, 0o711, 0}, {"mail", 0o700, boxID},
	} {
		path := filepath.Join(s.root(), d.name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chown(path, d.owner, d.owner); err != nil {
			return err
		}
		if err := os.Chmod(path, d.mode); err != nil {
			return err
		}
	}
	if err := os.Symlink("/run", filepath.Join(s.root(), "var/run")); err != nil {
		return err
	}
	return s.writeFiles(opt)
}

func (s *Server) writeFiles(opt Options) error {
	account := func(name string, id int, home string) string {
		return fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", name, id, id, home)
	}
	files := map[string]string{
		"etc/passwd":   account("root", 0, "/") + account("opensmtpd", daemonID, "/"+empty) + account("opensmtpq", queueID, "/"+empty) + account("box", boxID, "/mail"),
		"etc/group":    fmt.Sprintf("root:x:0:\nopensmtpd:x:%d:\nopensmtpq:x:%d:\nbox:x:%d:\n", daemonID, queueID, boxID),
		"etc/hosts":    "127.0.0.1 " + strings.Join(append([]string{"localhost"}, opt.Hosts...), " ") + "\n",
		"etc/mailname": hostname(opt) + "\n",
		// Nothing is asked of the network.
		"etc/resolv.conf": "lookup file\n",
		roots:             string(opt.CA),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.root(), name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for name, text := range opt.Files {
		// Its users read trust anchors; it refuses a key that they could read.
		mode := os.FileMode(0o644)
		if bytes.Contains(text, []byte("PRIVATE KEY")) {
			mode = 0o600
		}
		if err := os.WriteFile(filepath.Join(s.root(), FilesDir, name), text, mode); err != nil {
			return err
		}
	}
	return nil
}

func hostname(opt Options) string {
	if opt.Hostname == "" {
		return "opensmtpd.example"
	}
	return opt.Hostname
}

// configure chooses addresses and writes smtpd.conf.
func (s *Server) configure(opt Options) error {
	listeners := opt.Listeners
	if len(listeners) == 0 {
		listeners = []string{""}
	}
	var b strings.Builder
	for _, line := range opt.Lines {
		b.WriteString(line + "\n")
	}
	s.Addrs = nil
	for _, options := range listeners {
		addr, err := unpacked.FreeAddr()
		if err != nil {
			return err
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "listen on %s port %s %s\n", host, port, options)
		s.Addrs = append(s.Addrs, addr)
	}
	domains := opt.Domains
	if len(domains) == 0 {
		domains = []string{hostname(opt)}
	}
	b.WriteString("table \"all-users\" { \"@\" = \"box\" }\naction \"keep\" maildir \"/mail/all\" user \"box\" virtual <all-users>\n")
	for _, domain := range domains {
		fmt.Fprintf(&b, "match from any for domain %q action \"keep\"\n", domain)
	}
	return os.WriteFile(filepath.Join(s.root(), "etc/smtpd.conf"), []byte(b.String()), 0o600)
}

// listening connects and goes away.
func listening(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
