package gather

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// asker notes what was asked together.
type asker struct {
	mu    sync.Mutex
	asked [][]string
	gate  chan struct{} // nil: no waiting
	err   error
}

func (a *asker) ask(ctx context.Context, keys []string) ([]string, error) {
	a.mu.Lock()
	a.asked = append(a.asked, slices.Clone(keys))
	err := a.err
	a.mu.Unlock()
	if a.gate != nil {
		select {
		case <-a.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil && (len(keys) > 1 || keys[0] == "bad") {
		return nil, err
	}
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = "=" + k
	}
	return out, nil
}

func TestWaitersGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asker{gate: make(chan struct{})}
		g := New(a.ask, Options{Lanes: 1, Max: 3})
		var wg sync.WaitGroup
		for i := range 6 {
			key := fmt.Sprint(i)
			wg.Go(func() {
				if v, err := g.Do(t.Context(), key); err != nil || v != "="+key {
					t.Errorf("%s: %q, %v", key, v, err)
				}
			})
			synctest.Wait() // one after the other
		}
		close(a.gate)
		wg.Wait()
		synctest.Wait() // the lane is given up after the last answer
		g.mu.Lock()
		defer g.mu.Unlock()
		want := "[[0] [1 2 3] [4 5]]"
		if got := fmt.Sprint(a.asked); got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
		if g.busy != 0 || g.waiting != nil {
			t.Errorf("busy %d, waiting %v", g.busy, g.waiting)
		}
	})
}

func TestOneWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asker{gate: make(chan struct{})}
		g := New(a.ask, Options{Lanes: 1})
		go func() { _, _ = g.Do(context.Background(), "first") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := g.Do(ctx, "impatient"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		go func() { _, _ = g.Do(context.Background(), "patient") }()
		synctest.Wait()
		close(a.gate)
		synctest.Wait()
		if got, want := fmt.Sprint(a.asked), "[[first] [patient]]"; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
	})
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		err  error
		good string // what the good keys of a failed batch get
	}{
		{fmt.Errorf("one is bad: %w", ErrSplit), "=good"},
		{errors.New("down"), ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &asker{gate: make(chan struct{}), err: tt.err}
			g := New(a.ask, Options{Lanes: 1})
			go func() { _, _ = g.Do(context.Background(), "first") }()
			synctest.Wait()
			got := make(map[string]string)
			var mu sync.Mutex
			for _, key := range []string{"good", "bad"} {
				go func() {
					v, err := g.Do(context.Background(), key)
					mu.Lock()
					defer mu.Unlock()
					if got[key] = v; (err == nil) != (v != "") {
						t.Errorf("%s: %q, %v", key, v, err)
					}
				}()
				synctest.Wait()
			}
			close(a.gate)
			synctest.Wait()
			if got["good"] != tt.good || got["bad"] != "" {
				t.Errorf("%v: got %v", tt.err, got)
			}
		})
	}
}

func TestWrongNumberOfAnswers(t *testing.T) {
	g := New(func(context.Context, []string) ([]string, error) { return nil, nil }, Options{})
	if _, err := g.Do(t.Context(), "a"); err == nil {
		t.Error("no error for a missing answer")
	}
}
