package queue_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// readStore counts the rows of what is due that a queue reads, and how many envelopes
// it has in memory then.
type readStore struct {
	queue.Store
	q    atomic.Pointer[queue.Queue]
	rows atomic.Int64
	most atomic.Int64
}

func (s *readStore) Due(ctx context.Context, d queue.DueQuery) ([]queue.Stored, error) {
	rows, err := s.Store.Due(ctx, d)
	s.rows.Add(int64(len(rows)))
	s.look()
	return rows, err
}

// look notes how much is in memory.
func (s *readStore) look() {
	if q := s.q.Load(); q != nil {
		for n := int64(q.InMemory()); n > s.most.Load(); {
			s.most.Store(n)
		}
	}
}

// manyDue is a queue in which much is due, more than the memory has room for.
type manyDue struct {
	*rig
	store *readStore
	o     queue.Options
	w     queue.Worker
	gone  func()
	taken map[queue.EnvelopeID]bool
}

func (m *manyDue) open(t *testing.T, path string) {
	file, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	m.store = &readStore{Store: file}
	m.rig = openOn(t, m.store, m.o, &local{})
	m.store.q.Store(m.Queue)
	m.w, m.gone = m.RelayWorker()
}

func (m *manyDue) close() {
	m.gone()
	m.stop()
}

// next takes a job, and has its envelopes delivered, or failed.
func (m *manyDue) next(o queue.Outcome) queue.Job {
	m.t.Helper()
	j := takeOne(m.t, m.w)
	m.store.look()
	for _, e := range j.Envelopes {
		if m.taken[e.ID] {
			m.t.Errorf("%s was handed out twice", e.ID)
		}
		m.taken[e.ID] = true
	}
	r := queue.Result{Outcome: o}
	if o == queue.Failed {
		r.Code, r.Text = 550, "no"
	}
	done(m.t, m.w, j, r)
	return j
}

// until delivers until all of the addresses were handed out, and returns how many jobs
// that took.
func (m *manyDue) until(addresses []string) int {
	m.t.Helper()
	left := map[string]bool{}
	for _, a := range addresses {
		left[a] = true
	}
	for n := 1; ; n++ {
		for _, e := range m.next(queue.Delivered).Envelopes {
			delete(left, e.Address)
		}
		if len(left) == 0 {
			return n
		}
		if n > 100 {
			m.t.Fatalf("not handed out in %d jobs: %v", n, left)
		}
	}
}

// However much is due that may wait, a million with --long: what is urgent, or just
// usual, is handed out at once, new and after a restart, also to destinations that all
// of the rest is for; reports come after it; and neither what is in memory nor what is
// read for it depends on how much waits. All this is counted, and not measured in time.
func TestManyDue(t *testing.T) {
	t.Parallel()
	n, domains, pass := 5_000, 500, 700
	m := &manyDue{o: queue.Options{MaxActive: 1_280, First: 1000, Gather: time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, taken: map[queue.EnvelopeID]bool{}}
	if os.Getenv("TABARD_LONG") != "" {
		n, domains, pass, m.o.MaxActive = 1_000_000, 1000, 20_000, queue.DefaultMaxActive
	}
	path := filepath.Join(t.TempDir(), "queue.db")
	m.open(t, path)
	for range n / domains {
		m.enqueue(ranked(-5, numbered("low@d%d.example", domains)...), text)
	}
	m.passes(t, "new")
	m.reports(t)
	m.enqueue(ranked(9, "urgent@d2.example", "urgent@restart.example"), text)
	m.enqueue(ranked(0, "usual@d2.example", "usual@restart.example"), text)
	m.close()
	m.open(t, path)
	if jobs := m.until([]string{"urgent@d2.example", "urgent@restart.example", "usual@d2.example", "usual@restart.example"}); jobs > 8 {
		t.Errorf("after a restart, urgent and usual mail was handed out with the %dth job", jobs)
	}
	if read := int(m.store.rows.Load()); read > m.o.MaxActive+1000 {
		t.Errorf("after a restart %d rows were read", read)
	}
	m.passes(t, "after a restart")
	before := m.store.rows.Load()
	for range pass {
		m.next(queue.Delivered)
	}
	if read := int(m.store.rows.Load() - before); read > 3*pass+m.o.MaxActive {
		t.Errorf("%d rows were read to hand out %d", read, pass)
	}
	if most := int(m.store.most.Load()); most > m.o.MaxActive || most < m.o.MaxActive/2 {
		t.Errorf("%d envelopes in memory, want up to %d", most, m.o.MaxActive)
	}
	m.passes(t, "later")
	m.close()
}

// passes lets urgent mail, and then usual, pass all that waits.
func (m *manyDue) passes(t *testing.T, when string) {
	t.Helper()
	for _, priority := range []int{9, 0} {
		kind := strings.ReplaceAll(fmt.Sprintf("p%d-%s", priority, when), " ", "-")
		to := []string{kind + "@d1.example", kind + "@" + kind + ".example"}
		m.enqueue(ranked(priority, to...), text)
		if jobs := m.until(to); jobs > 5 {
			t.Errorf("%s, priority %d: handed out with the %dth job", when, priority, jobs)
		}
	}
}

// reports has some mail fail, and then more than fails sent to those that get the
// reports: this goes first, but for one turn in sixteen.
func (m *manyDue) reports(t *testing.T) {
	t.Helper()
	for range 20 {
		m.next(queue.Failed)
	}
	eventually(t, "reports", func() bool { return m.stats().Bounced > 0 })
	to := numbered("usual%d@x.example", 30)
	for _, a := range to {
		m.enqueue(message("s@y.example", a), text)
	}
	if jobs := m.until(to); jobs > 34 {
		t.Errorf("usual mail went before reports within %d jobs only", jobs)
	}
}
