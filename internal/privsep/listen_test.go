package privsep

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "control")
	first, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := ListenUnix(path, 0o600); !errors.Is(err, ErrInUse) {
		t.Errorf("while another server lives: %v", err)
	}
	accepted := make(chan error, 2)
	go func() {
		for range 2 { // the test above, and the one below
			conn, err := first.Accept()
			if err == nil {
				conn.Close()
			}
			accepted <- err
		}
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Errorf("the living server was disturbed: %v", err)
	} else {
		conn.Close()
	}
	<-accepted
	<-accepted
	first.Close() // leaves its socket behind, as a crash does
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("no stale socket to replace: %v", err)
	}
	second, err := ListenUnix(path, 0o666)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	defer second.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v", info, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestListenUnixRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a file":              file,
		"a directory":         dir,
		"a missing directory": filepath.Join(dir, "missing", "s"),
		"too long a path":     filepath.Join(dir, strings.Repeat("x", 300)),
	} {
		if l, err := ListenUnix(path, 0o600); err == nil {
			l.Close()
			t.Errorf("%s: replaced", name)
		}
	}
	if b, err := os.ReadFile(file); string(b) != "data" {
		t.Errorf("the file now holds %q, %v", b, err)
	}
}

func TestListen(t *testing.T) {
	f, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen("tcp", l.Addr().String()); err == nil {
		t.Error("an address in use was bound")
	}
	if _, err := Listen("unix", filepath.Join(t.TempDir(), "s")); err == nil {
		t.Error("a unix socket is not TCP")
	}
}
