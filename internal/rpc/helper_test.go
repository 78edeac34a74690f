package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// peerVar makes the test binary serve the test service on descriptor 3.
const peerVar = "TABARD_RPC_TEST_PEER"

func TestMain(m *testing.M) {
	if os.Getenv(peerVar) == "" {
		os.Exit(m.Run())
	}
	conn, err := net.FileConn(os.NewFile(3, "peer"))
	if err == nil {
		srv := NewServer()
		if err = srv.Register("T", &service{}); err == nil {
			err = srv.Serve(context.Background(), conn)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// service is what the tests call.
type service struct {
	entered atomic.Int64
	inside  atomic.Int64
	most    atomic.Int64
	gate    chan struct{} // Block waits for it
	ended   chan error    // the context error that Block saw
}

func (s *service) Echo(c *Call[[]byte], r *Reply[[]byte]) error {
	return Do(c, r, func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
}

func (s *service) Nothing(c *Call[None], r *Reply[None]) error {
	return Do(c, r, func(context.Context, None) (None, error) { return None{}, nil })
}

func (s *service) Swallow(c *Call[[]byte], r *Reply[None]) error {
	return Do(c, r, func(context.Context, []byte) (None, error) { return None{}, nil })
}

func (s *service) Fail(c *Call[string], r *Reply[None]) error {
	return Do(c, r, func(_ context.Context, kind string) (None, error) { return None{}, namedError(kind) })
}

func (s *service) Panic(c *Call[None], r *Reply[None]) error {
	return Do(c, r, func(context.Context, None) (None, error) {
		panic("on purpose")
	})
}

func (s *service) Deadline(c *Call[None], r *Reply[time.Duration]) error {
	return Do(c, r, func(ctx context.Context, _ None) (time.Duration, error) {
		d, ok := ctx.Deadline()
		if !ok {
			return 0, errors.New("no deadline")
		}
		return time.Until(d), nil
	})
}

func (s *service) Large(c *Call[int], r *Reply[[]byte]) error {
	return Do(c, r, func(_ context.Context, n int) ([]byte, error) { return make([]byte, n), nil })
}

// Block waits for the gate or the end of its context.
func (s *service) Block(c *Call[None], r *Reply[None]) error {
	return Do(c, r, func(ctx context.Context, _ None) (None, error) {
		n := s.inside.Add(1)
		defer s.inside.Add(-1)
		for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
		}
		s.entered.Add(1)
		select {
		case <-s.gate:
			return None{}, nil
		case <-ctx.Done():
			select {
			case s.ended <- ctx.Err():
			default: // nobody asks
			}
			return None{}, ctx.Err()
		}
	})
}

func namedError(kind string) error {
	for c := codeUnavailable; c <= codeCanceled; c++ {
		if c.sentinel().Error() == kind {
			return fmt.Errorf("some context: %w", c.sentinel())
		}
	}
	return errors.New(kind)
}

// pair returns the two ends of a socketpair.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fa, fb := pairFiles(t)
	return fileConn(t, fa), fileConn(t, fb)
}

func pairFiles(t testing.TB) (a, b *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	return os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
}

func fileConn(t testing.TB, f *os.File) net.Conn {
	t.Helper()
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// serve serves svc on conn and returns what Serve returns.
func serve(t testing.TB, svc *service, conn net.Conn, opts ...Option) <-chan error {
	t.Helper()
	srv := NewServer(opts...)
	if err := srv.Register("T", svc); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { done <- srv.Serve(ctx, conn) }()
	return done
}

// start returns a client of svc in this process.
func start(t testing.TB, svc *service, opts ...Option) (*Client, <-chan error) {
	t.Helper()
	a, b := pair(t)
	done := serve(t, svc, a, opts...)
	c := NewClient(b, opts...)
	t.Cleanup(func() { c.Close() })
	return c, done
}

func newService() *service {
	return &service{gate: make(chan struct{}), ended: make(chan error, 1000)}
}

// startProcess returns a client of a service in another process, and what stops it.
func startProcess(t testing.TB) (c *Client, stop func()) {
	t.Helper()
	a, b := pairFiles(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), peerVar+"=1")
	cmd.ExtraFiles = []*os.File{a}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.Close()
	c = NewClient(fileConn(t, b))
	stop = sync.OnceFunc(func() {
		c.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("peer process: %v", err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// eventually waits until ok, and fails the test if that takes too long.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
