package queue

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tabard/internal/rpc"
)

// ended notes what ended.
type ended struct{ list []string }

func (e *ended) handles(most int) *handles[string] {
	return &handles[string]{what: "thing", most: most, idle: time.Hour, end: func(s string) { e.list = append(e.list, s) }}
}

func (e *ended) want(t *testing.T, list ...string) {
	t.Helper()
	if slices.Sort(e.list); !slices.Equal(e.list, list) {
		t.Errorf("ended: %v, want %v", e.list, list)
	}
}

func added(t *testing.T, h *handles[string], it string) int64 {
	t.Helper()
	id, err := h.add(it)
	if err != nil || id == 0 {
		t.Fatalf("add %s: %d, %v", it, id, err)
	}
	return id
}

func TestHandlesEnd(t *testing.T) {
	e := &ended{}
	h := e.handles(4)
	a, b, c, d := added(t, h, "a"), added(t, h, "b"), added(t, h, "c"), added(t, h, "d")
	if _, err := h.add("e"); !errors.Is(err, rpc.ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	e.want(t, "e")
	see := func(want string, result error) func(string) error {
		return func(it string) error {
			if it != want {
				t.Errorf("got %q, want %q", it, want)
			}
			return result
		}
	}
	fault := errors.New("fault")
	if err := h.use(a, see("a", nil)); err != nil {
		t.Error(err)
	}
	if err := h.use(b, see("b", fault)); err != fault {
		t.Errorf("use: %v", err)
	}
	if err := h.last(c, see("c", fault)); err != fault {
		t.Errorf("last: %v", err)
	}
	if err := h.remove(d); err != nil {
		t.Error(err)
	}
	e.want(t, "b", "d", "e") // c has ended by itself
	for _, id := range []int64{0, b, c, d} {
		for _, err := range []error{h.use(id, see("", nil)), h.last(id, see("", nil)), h.remove(id)} {
			if !errors.Is(err, rpc.ErrInvalid) {
				t.Errorf("%d: %v", id, err)
			}
		}
	}
	added(t, h, "f") // there is room again
	h.close()
	h.close()
	e.want(t, "a", "b", "d", "e", "f")
	if _, err := h.add("g"); !errors.Is(err, rpc.ErrBusy) {
		t.Errorf("after the end: %v", err)
	}
	e.want(t, "a", "b", "d", "e", "f", "g")
}

// What a peer forgets does not stay for as long as the peer does.
func TestHandlesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ended{}
		h := e.handles(10)
		a, b := added(t, h, "a"), added(t, h, "b")
		nothing := func(string) error { return nil }
		for range 3 {
			time.Sleep(40 * time.Minute)
			if err := h.use(a, nothing); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		e.want(t, "b")
		if err := h.use(b, nothing); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("use: %v", err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		e.want(t, "a", "b")
		added(t, h, "c")
		h.close()
		time.Sleep(2 * time.Hour)
		e.want(t, "a", "b", "c")
	})
}
