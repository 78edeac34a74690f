package privsep

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// serving is a listener on a file of Listen.
func serving(t *testing.T, f *os.File) net.Listener {
	t.Helper()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// unshared checks that no other program of the user can bind the port of f.
func unshared(t *testing.T, f *os.File) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT); v != 0 || err != nil {
			t.Errorf("SO_REUSEPORT is %d, %v", v, err)
		}
	}); err != nil {
		t.Error(err)
	}
}

// TestListenBeside: a socket for all addresses takes over from one for one of
// them, and the other way round, with both open for a while.
func TestListenBeside(t *testing.T) {
	for _, hosts := range [][2]string{
		{"127.0.0.1", "0.0.0.0"}, {"127.0.0.1", ""}, {"0.0.0.0", "127.0.0.1"}, {"", "127.0.0.1"}, {"::1", ""}, {"0.0.0.0", ""},
	} {
		old, err := Listen("tcp", net.JoinHostPort(hosts[0], "0"))
		if err != nil {
			t.Fatal(err)
		}
		oldServes := serving(t, old)
		_, port, _ := net.SplitHostPort(oldServes.Addr().String())
		addr := net.JoinHostPort(hosts[1], port)
		if _, err := Listen("tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("%v: %v; the test shows nothing", hosts, err)
		}
		f, err := ListenBeside("tcp", addr, []*os.File{old})
		if err != nil {
			t.Errorf("%v: %v", hosts, err)
			_ = old.Close()
			continue
		}
		inUse := func(when string) {
			t.Helper()
			for _, h := range hosts {
				if _, err := Listen("tcp", net.JoinHostPort(h, port)); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("%v: another program binds %q %s: %v", hosts, h, when, err)
				}
			}
		}
		inUse("while both are open")
		unshared(t, f)
		unshared(t, old)
		newServes := serving(t, f)
		_ = oldServes.Close()
		_ = old.Close()
		inUse("afterwards")
		conn, err := net.Dial("tcp", net.JoinHostPort("localhost", port))
		if err != nil {
			t.Errorf("%v: %v", hosts, err)
			continue
		}
		accepted, err := newServes.Accept()
		if err != nil {
			t.Errorf("%v: %v", hosts, err)
			continue
		}
		_, _, _ = accepted.Close(), conn.Close(), f.Close()
	}
}

// TestListenBesideOthers: what is not ours stays in the way, and what is ours as
// it was.
func TestListenBesideOthers(t *testing.T) {
	foreign, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = foreign.Close() }()
	addr := serving(t, foreign).Addr().String()
	ours, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ours.Close() }()
	for _, leaving := range [][]*os.File{nil, {ours}} {
		if _, err := ListenBeside("tcp", addr, leaving); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("beside %d of ours: %v", len(leaving), err)
		}
	}
	unshared(t, ours)
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenBeside("tcp", addr, []*os.File{ours}); err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside a closed one: %v", err)
	}
}
