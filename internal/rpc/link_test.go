package rpc

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// peer serves a fresh service and returns the client's end.
func peer(t *testing.T) (*service, net.Conn) {
	t.Helper()
	svc := newService()
	a, b := pair(t)
	serve(t, svc, a)
	return svc, b
}

func TestLinkWaitsForItsPeer(t *testing.T) {
	l := NewLink("queue")
	defer l.Close()
	got := make(chan error, 1)
	go func() {
		_, err := Invoke[None, None](t.Context(), l, "T.Nothing", None{})
		got <- err
	}()
	_, conn := peer(t)
	l.Set(conn)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestLinkWithoutPeer(t *testing.T) {
	l := NewLink("queue")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := Invoke[None, None](ctx, l, "T.Nothing", None{})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "queue") {
		t.Errorf("bounded by ctx: %v", err)
	}
	l.Close()
	if _, err := Invoke[None, None](t.Context(), l, "T.Nothing", None{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
	_, conn := peer(t)
	l.Set(conn)
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("a closed link left its connection open")
	}
}

func TestLinkReplacesALostConnection(t *testing.T) {
	l := NewLink("queue")
	defer l.Close()
	svc, conn := peer(t)
	l.Set(conn)

	inFlight := make(chan error, 1)
	go func() {
		_, err := Invoke[None, None](t.Context(), l, "T.Block", None{})
		inFlight <- err
	}()
	eventually(t, "the handler runs", func() bool { return svc.entered.Load() == 1 })
	conn.Close()
	if err := <-inFlight; !errors.Is(err, ErrUnavailable) || errors.Is(err, errNotSent) || !strings.HasPrefix(err.Error(), "queue: ") {
		t.Errorf("call in flight: %v", err)
	}

	// A call that finds the connection lost waits for the next one.
	<-l.client.Done()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Invoke[None, None](ctx, l, "T.Nothing", None{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call on a lost connection: %v", err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := Invoke[None, None](t.Context(), l, "T.Nothing", None{})
		waiting <- err
	}()
	_, conn = peer(t)
	l.Set(conn)
	if err := <-waiting; err != nil {
		t.Errorf("call after the new connection: %v", err)
	}
}

func TestLinkSetEndsTheConnectionBefore(t *testing.T) {
	l := NewLink("queue")
	defer l.Close()
	svc, conn := peer(t)
	l.Set(conn)
	inFlight := make(chan error, 1)
	go func() {
		_, err := Invoke[None, None](t.Context(), l, "T.Block", None{})
		inFlight <- err
	}()
	eventually(t, "the handler runs", func() bool { return svc.entered.Load() == 1 })
	_, next := peer(t)
	l.Set(next)
	if err := <-inFlight; !errors.Is(err, ErrUnavailable) {
		t.Errorf("call in flight: %v", err)
	}
	if err := <-svc.ended; err != context.Canceled {
		t.Errorf("handler: %v", err)
	}
	if _, err := Invoke[None, None](t.Context(), l, "T.Nothing", None{}); err != nil {
		t.Errorf("call on the next connection: %v", err)
	}
}

// flaky is a peer that loses the connection some times before it answers.
type flaky struct {
	fails, calls int
	err          error
}

func (f *flaky) Call(context.Context, string, any, any) error {
	if f.calls++; f.calls <= f.fails {
		return f.err
	}
	return nil
}

func TestInvokeRetry(t *testing.T) {
	remote := &RemoteError{Text: "x", sentinel: ErrUnavailable}
	for _, tt := range []struct {
		name  string
		peer  flaky
		calls int
		ok    bool
	}{
		{"at once", flaky{}, 1, true},
		{"lost thrice", flaky{fails: 3, err: ErrUnavailable}, 4, true},
		{"another error", flaky{fails: 3, err: ErrBusy}, 1, false},
		{"the peer's own peer", flaky{fails: 3, err: remote}, 1, false},
	} {
		_, err := InvokeRetry[None, None](t.Context(), &tt.peer, "T.X", None{})
		if tt.peer.calls != tt.calls || (err == nil) != tt.ok {
			t.Errorf("%s: %d calls, %v", tt.name, tt.peer.calls, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := flaky{fails: 1000, err: ErrUnavailable}
	if _, err := InvokeRetry[None, None](ctx, &f, "T.X", None{}); !errors.Is(err, ErrUnavailable) || f.calls > 1 {
		t.Errorf("ended context: %d calls, %v", f.calls, err)
	}
}
