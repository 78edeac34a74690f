package rpc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEcho(t *testing.T) {
	for name, c := range map[string]*Client{"same process": first(start(t, newService())), "other process": first(startProcess(t))} {
		for _, size := range []int{0, 1, 1000, 100_000, DefaultMaxFrame - 100} {
			want := bytes.Repeat([]byte{'x'}, size)
			got, err := Invoke[[]byte, []byte](t.Context(), c, "T.Echo", want)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: echo of %d bytes: %d bytes, %v", name, size, len(got), err)
			}
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

func TestManyCallers(t *testing.T) {
	c, _ := start(t, newService())
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(i)}, 10*i)
			for range 200 {
				got, err := Invoke[[]byte, []byte](t.Context(), c, "T.Echo", want)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("caller %d got another answer: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestErrorsKeepTheirIdentity(t *testing.T) {
	c, _ := start(t, newService())
	sentinels := []error{ErrUnavailable, ErrNotFound, ErrNoSpace, ErrTooLarge, ErrInvalid, ErrBusy, context.DeadlineExceeded, context.Canceled}
	for _, want := range sentinels {
		_, err := Invoke[string, None](t.Context(), c, "T.Fail", want.Error())
		for _, other := range sentinels {
			if errors.Is(err, other) != (other == want) {
				t.Errorf("%q arrived as %v, which is %v", want, err, other)
			}
		}
		if err.Error() != "some context: "+want.Error() {
			t.Errorf("text: %q", err)
		}
	}
	_, err := Invoke[string, None](t.Context(), c, "T.Fail", "disk on fire")
	if err == nil || err.Error() != "disk on fire" || errors.Unwrap(err) != nil {
		t.Errorf("plain error arrived as %#v", err)
	}
	_, err = Invoke[string, None](t.Context(), c, "T.Fail", strings.Repeat("x", 100_000))
	if err == nil || len(err.Error()) != maxErrorText {
		t.Errorf("a long error has %d bytes", len(err.Error()))
	}
	if _, err = Invoke[string, None](t.Context(), c, "T.Fail", ""); err == nil {
		t.Error("an error without text got lost")
	}
}

func TestUnknownMethods(t *testing.T) {
	c, _ := start(t, newService())
	for _, m := range []string{"T.Missing", "X.Echo", "noservice", "", ".", strings.Repeat("m", 255), strings.Repeat("m", 256)} {
		if _, err := Invoke[None, None](t.Context(), c, m, None{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.20q: %v", m, err)
		}
	}
	if _, err := Invoke[None, None](t.Context(), c, "T.Nothing", None{}); err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
}

func TestPanicIsAnswered(t *testing.T) {
	var log bytes.Buffer
	c, _ := start(t, newService(), Logger(slog.New(slog.NewTextHandler(&log, nil))))
	_, err := Invoke[None, None](t.Context(), c, "T.Panic", None{})
	if err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(log.String(), "on purpose") || !strings.Contains(log.String(), "T.Panic") {
		t.Errorf("log: %s", log.String())
	}
	if _, err := Invoke[None, None](t.Context(), c, "T.Nothing", None{}); err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
}

func TestDeadlineTravels(t *testing.T) {
	c, _ := startProcess(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	left, err := Invoke[None, time.Duration](ctx, c, "T.Deadline", None{})
	if err != nil || left <= 50*time.Minute || left > time.Hour+time.Second {
		t.Errorf("remaining: %v, %v", left, err)
	}
	if _, err := Invoke[None, time.Duration](t.Context(), c, "T.Deadline", None{}); err == nil {
		t.Error("a deadline came from nowhere")
	}
	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := Invoke[None, None](ctx, c, "T.Nothing", None{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call after its deadline: %v", err)
	}
}

func TestHandlerContextEnds(t *testing.T) {
	t.Run("at the deadline", func(t *testing.T) {
		svc := newService()
		c, _ := start(t, svc)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := Invoke[None, None](ctx, c, "T.Block", None{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("caller: %v", err)
		}
		<-svc.ended
	})
	t.Run("when the caller gives up", func(t *testing.T) {
		svc := newService()
		c, _ := start(t, svc)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			eventually(t, "the handler runs", func() bool { return svc.entered.Load() == 1 })
			cancel()
		}()
		if _, err := Invoke[None, None](ctx, c, "T.Block", None{}); !errors.Is(err, context.Canceled) {
			t.Errorf("caller: %v", err)
		}
		if err := <-svc.ended; err != context.Canceled {
			t.Errorf("handler: %v", err)
		}
		if _, err := Invoke[None, None](t.Context(), c, "T.Nothing", None{}); err != nil {
			t.Errorf("the connection did not survive: %v", err)
		}
	})
	t.Run("when the connection is lost", func(t *testing.T) {
		svc := newService()
		c, done := start(t, svc)
		go func() {
			eventually(t, "the handler runs", func() bool { return svc.entered.Load() == 1 })
			c.Close()
		}()
		if _, err := Invoke[None, None](t.Context(), c, "T.Block", None{}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("caller: %v", err)
		}
		if err := <-svc.ended; err != context.Canceled {
			t.Errorf("handler: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	a, b := pair(t)
	srv := NewServer()
	if err := srv.Register("T", newService()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, a) }()
	c := NewClient(b)
	if _, err := Invoke[None, None](t.Context(), c, "T.Nothing", None{}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	<-c.Done()
	if _, err := Invoke[None, None](t.Context(), c, "T.Nothing", None{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("call afterwards: %v", err)
	}
}

func TestSizeLimits(t *testing.T) {
	c, _ := start(t, newService(), MaxFrame(10_000))
	if _, err := Invoke[[]byte, []byte](t.Context(), c, "T.Echo", make([]byte, 20_000)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large request: %v", err)
	}
	if _, err := Invoke[int, []byte](t.Context(), c, "T.Large", 20_000); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large answer: %v", err)
	}
	if b, err := Invoke[int, []byte](t.Context(), c, "T.Large", 9_000); err != nil || len(b) != 9_000 {
		t.Errorf("answer within the limit: %d, %v", len(b), err)
	}
}

type oddMethods struct{}

func (oddMethods) Echo(c *Call[None], r *Reply[None]) error { return nil }
func (oddMethods) Odd(string, *string) error                { return nil }

func TestRegisterRefuses(t *testing.T) {
	s := NewServer()
	for _, rcvr := range []any{oddMethods{}, struct{}{}} {
		if err := s.Register("X", rcvr); err == nil {
			t.Errorf("%T was registered", rcvr)
		}
	}
	if err := s.Register("T", newService()); err != nil {
		t.Fatal(err)
	}
	if err := s.Register("T", newService()); err == nil {
		t.Error("a second service has the same name")
	}
}
