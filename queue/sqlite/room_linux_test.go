package sqlite

import (
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"tabard/internal/rpc"
	"tabard/queue"
)

// New mail, small or large, leaves room for what becomes of mail that is there.
func TestNewMailLeavesRoom(t *testing.T) {
	t.Parallel()
	m := &machine{counts: map[class]int{}}
	m.free = new(atomic.Int64)
	m.free.Store(1 << 30)
	s, err := openOn(t.Context(), filepath.Join(t.TempDir(), "queue.db"), m.under(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	apply(t, s, put(1, "a", "b"))
	late, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Write(make([]byte, 1<<16)); err != nil {
		t.Fatal(err)
	}
	defer late.Discard()

	m.free.Store(reserveMost + 1000)
	big := put(2, "a")
	big.Insert[0].Body = []byte(strings.Repeat("x", 600)) // it would be there twice
	if err := s.Apply(t.Context(), []*queue.Change{big}); !errors.Is(err, rpc.ErrNoSpace) {
		t.Errorf("new mail: %v", err)
	}
	m.free.Store(reserveMost - 1)
	if _, err := s.Stage(); !errors.Is(err, rpc.ErrNoSpace) || !strings.Contains(err.Error(), "256 MiB are kept") {
		t.Errorf("large mail: %v", err)
	}
	if _, err := late.Write(make([]byte, 1<<16)); !errors.Is(err, rpc.ErrNoSpace) {
		t.Errorf("more of large mail: %v", err)
	}
	report := put(3, "sender")
	report.Remove = []queue.EnvelopeID{queue.EnvelopeID{Message: 1, N: 1}}
	apply(t, s, report)
	apply(t, s, &queue.Change{Update: []queue.Update{{ID: queue.EnvelopeID{Message: 1, N: 0}, Attempts: 1}}})
	apply(t, s, &queue.Change{Remove: []queue.EnvelopeID{queue.EnvelopeID{Message: 1, N: 0}}})
	m.free.Store(1 << 30)
	apply(t, s, big)
}

func TestReserve(t *testing.T) {
	const mib = 1 << 20
	for total, want := range map[int64]int64{8 * mib: mib, 144 * mib: 16 * mib, 2000 * mib: 40 * mib, 1 << 40: 256 * mib} {
		if got := reserve(total); got != want {
			t.Errorf("of %d MiB: %d, want %d", total/mib, got, want)
		}
	}
}
