package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/privsep"
	"tabard/internal/privsep/fdpass"
)

// processes stands in for the supervisor: "queue" runs and echoes.
type processes struct{ edges chan string }

func (p *processes) Status() privsep.Status {
	return privsep.Status{PID: 42, Processes: []privsep.ProcessStatus{{
		Name: "queue", PID: 43, State: privsep.StateRunning, Since: time.Unix(1000, 5).UTC(), Restarts: 2, LastExit: "signal: killed",
		Layers: []privsep.Layer{{Name: "own user", Reason: "not root"}},
	}}}
}

func (p *processes) Reload(context.Context) error { return errors.New("tabard.conf:3:7: no") }

func (p *processes) Connect(process, edge string) (*os.File, error) {
	if process != "queue" {
		return nil, errors.New(process + ": no such process")
	}
	p.edges <- edge
	near, far, err := fdpass.Pair()
	if err != nil {
		return nil, err
	}
	go func() {
		defer near.Close()
		io.Copy(near, near)
	}()
	return far, nil
}

// serve serves a control socket and returns its path.
func serve(t testing.TB) (path string, stop func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control")
	srv, err := Listen(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, &processes{make(chan string, 10)}) }()
	var result error
	ended := false
	stop = func() error {
		if !ended {
			cancel()
			result, ended = <-done, true
		}
		return result
	}
	t.Cleanup(func() { stop() })
	return path, stop
}

func dial(t testing.TB, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStatus(t *testing.T) {
	path, _ := serve(t)
	st, err := dial(t, path).Status(t.Context())
	want := (&processes{}).Status()
	if err != nil || st.PID != want.PID || len(st.Processes) != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	got, exp := st.Processes[0], want.Processes[0]
	if got.Name != exp.Name || got.PID != exp.PID || got.State != exp.State || !got.Since.Equal(exp.Since) || got.Restarts != exp.Restarts || got.LastExit != exp.LastExit || got.Layers[0] != exp.Layers[0] {
		t.Errorf("%+v, want %+v", got, exp)
	}
}

func TestConnect(t *testing.T) {
	path, _ := serve(t)
	c := dial(t, path)
	conn, err := c.Connect(t.Context(), "queue")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Connect(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "nobody: no such process") {
		t.Errorf("unknown process: %v", err)
	}
}

func TestReload(t *testing.T) {
	path, _ := serve(t)
	var refused *RefusedError
	if err := dial(t, path).Reload(t.Context()); !errors.As(err, &refused) || refused.Reason != "tabard.conf:3:7: no" {
		t.Errorf("%v", err)
	}
}

func TestNotRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	_, err := Dial(path)
	if !errors.Is(err, ErrNotRunning) || err.Error() != "tabard is not running (no control socket at "+path+")" {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(path); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("stale socket: %v", err)
	}
}

func TestSocketBelongsToOneServer(t *testing.T) {
	path, stop := serve(t)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	if _, err := Listen(path, slog.New(slog.DiscardHandler)); !errors.Is(err, privsep.ErrInUse) {
		t.Errorf("a second server: %v", err)
	}
	c := dial(t, path)
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the stop: %v", err)
	}
}

func TestTheNextServersSocketIsLeftAlone(t *testing.T) {
	path, stop := serve(t)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	next, err := Listen(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer next.l.Close()
	stop()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the next server's socket is gone: %v", err)
	}
}

var hostile = map[string][]byte{
	"nothing":       {},
	"a byte":        {0},
	"zeros":         make([]byte, 5000),
	"huge length":   {0xff, 0xff, 0xff, 0xff, 0, 1, 2, 3},
	"too long":      append([]byte{0, 0, 0x20, 0}, make([]byte, 0x2000)...),
	"cut short":     {0, 0, 0, 9, 0, 0xa1},
	"not cbor":      {0, 0, 0, 2, 0, 0xff},
	"wrong type":    {0, 0, 0, 3, 0, 0x61, 'x'},
	"unknown op":    {0, 0, 0, 6, 0, 0xa1, 0x62, 'O', 'p', 0x07},
	"http":          []byte("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
	"imsg of smtpd": bytes.Repeat([]byte{0, 0, 0, 0, 0x10, 0, 0, 0}, 8),
}

// Whatever is written there, the server goes on, and answers the next.
func TestHostileClients(t *testing.T) {
	path, _ := serve(t)
	for name, data := range hostile {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		conn.Write(data) // may fail when the server has seen enough
		conn.(*net.UnixConn).CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
		if _, err := dial(t, path).Status(t.Context()); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

func TestStalledClientsDoNotStopOthers(t *testing.T) {
	path, _ := serve(t)
	for range maxConns - 2 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte{0, 0})
	}
	if _, err := dial(t, path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAStalledConnectionEnds(t *testing.T) {
	a, b, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	conn, err := net.FileConn(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte{0, 0}); err != nil {
		t.Fatal(err)
	}
	s := &Server{log: slog.New(slog.DiscardHandler), timeout: 10 * time.Millisecond}
	s.serve(t.Context(), conn.(*net.UnixConn), &processes{}) // returns
}

// A client does not trust what it finds at the path either.
func TestHostileServer(t *testing.T) {
	for name, data := range hostile {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conn.Write(data)
				conn.Close()
			}
		}()
		c := dial(t, path)
		if conn, err := c.Connect(t.Context(), "queue"); err == nil {
			conn.Close()
			t.Errorf("%s: connected", name)
		}
		l.Close()
	}
}

func TestClientHonoursItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := dial(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// FuzzServer feeds one connection bytes.
func FuzzServer(f *testing.F) {
	for _, data := range hostile {
		f.Add(data)
	}
	f.Add([]byte{0, 0, 0, 6, 0, 0xa1, 0x62, 'O', 'p', 0x01})
	s := &Server{log: slog.New(slog.DiscardHandler), timeout: exchangeTimeout}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2*maxRequest {
			return
		}
		a, b, err := fdpass.Pair()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Write(data); err != nil {
			t.Fatal(err)
		}
		b.Close()
		defer a.Close()
		conn, err := net.FileConn(a)
		if err != nil {
			t.Fatal(err)
		}
		s.serve(t.Context(), conn.(*net.UnixConn), &processes{make(chan string, 1)})
	})
}
