package privsep

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Listen opens a TCP listener and returns it as a file for Spec.Listeners. The
// address may be reused at once after a restart; the backlog is the system's
// largest. MPTCP is off: it would escape the rules for TCP of a sandbox.
func Listen(network, addr string) (*os.File, error) { return listen(network, addr, nil) }

// ListenBeside is Listen where one of ours, listeners that Listen made, may be in
// the way: a socket for all addresses beside one for 127.0.0.1 with the same
// port, or the other way round. Each then gets what is sent to its address, the
// one with the closer address first. What is not ours stays in the way.
//
// It needs SO_REUSEPORT as on Linux, which is set on both sockets for this moment
// only: afterwards no other program can bind the address, either.
func ListenBeside(network, addr string, ours []*os.File) (f *os.File, err error) {
	f, err = Listen(network, addr)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return f, err
	}
	first := err
	defer func() {
		for _, o := range ours {
			err = errors.Join(err, sharePort(o, false))
		}
		if err != nil && f != nil {
			_ = f.Close()
			f = nil
		}
	}()
	for _, o := range ours {
		if err := sharePort(o, true); err != nil {
			return nil, errors.Join(first, err)
		}
	}
	f, err = listen(network, addr, func(_, _ string, raw syscall.RawConn) error { return setSharePort(raw, true) })
	if err != nil {
		return nil, first // says it without our attempt
	}
	return f, sharePort(f, false)
}

func sharePort(f *os.File, on bool) error {
	raw, err := f.SyscallConn() // f.Fd() would make it blocking, also for who shares it
	if err != nil {
		return fmt.Errorf("share a port: %w", err)
	}
	return setSharePort(raw, on)
}

func listen(network, addr string, control func(network, addr string, raw syscall.RawConn) error) (*os.File, error) {
	lc := net.ListenConfig{Control: control}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("listen %s %s: not a TCP network", network, addr)
	}
	return tcp.File()
}

// ErrInUse means that another live server listens on a UNIX socket's path.
var ErrInUse = errors.New("another server is listening there")

// probeTimeout bounds the test whether a server lives on a path.
const probeTimeout = 5 * time.Second

// ListenUnix listens on a UNIX socket at path with exactly the permissions of
// mode, which hold from the first moment that the path exists. A socket whose
// server is gone is replaced atomically; a live server (ErrInUse) and a file
// that is no socket are left alone. Closing the listener does not remove path.
func ListenUnix(path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := vacant(path); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// Bound inside a directory of our own, nobody can connect too early.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(temp, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// vacant returns nil if path is free or a socket that nobody listens on.
func vacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("a file that is not a socket is in the way")
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		conn.Close()
		return ErrInUse
	}
	if !refused(err) {
		return err // alive but full, or not ours to judge
	}
	return nil
}

func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}
