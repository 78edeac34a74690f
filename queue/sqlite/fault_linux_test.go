package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/bodycode"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/queue"
)

// nobody is lookup for a queue that only relays.
type nobody struct{ lookup.Local }

func (nobody) Actions(context.Context) ([]lookup.ActionInfo, error) {
	return []lookup.ActionInfo{{Name: "out", Relay: true}}, nil
}

// story is what a queue was told and what it said to that.
type story struct {
	m        *machine
	form     form
	q        *queue.Queue
	worker   queue.Worker
	log      bytes.Buffer
	accepted map[queue.MessageID]bool // it got a 250
	refused  map[queue.MessageID]error
	gone     map[queue.MessageID]bool               // its delivery was recorded
	taken    map[queue.MessageID]bool               // it was delivered, recorded or not
	first    error                                  // of any call
	last     error                                  // of the last
	endless  bool                                   // rotation did not end
	points   int                                    // how often the disk was asked for what fails
	done     func(acked string, id queue.MessageID) // told of every promise
}

// tell opens the store at path on a machine, and lives through what begin arms.
func tell(t testing.TB, m *machine, f form, u under, path string, begin func(), done func(string, queue.MessageID)) *story {
	t.Helper()
	s := &story{
		m: m, form: f, done: done, accepted: map[queue.MessageID]bool{}, refused: map[queue.MessageID]error{},
		gone: map[queue.MessageID]bool{}, taken: map[queue.MessageID]bool{},
	}
	store, err := openOn(context.Background(), path, u)
	if err != nil {
		t.Fatal(err)
	}
	s.q, err = queue.New(context.Background(), store, nobody{}, queue.Options{Logger: slog.New(slog.NewTextHandler(&s.log, nil)), Coder: f.first})
	if err != nil {
		t.Fatal(err)
	}
	var release func()
	s.worker, release = s.q.RelayWorker()
	begin()
	s.live()
	s.points = m.count(m.class)
	m.heal()
	s.submit(6, true)
	release()
	s.q.Close() // its error is that of the fault
	return s
}

// live is the life of five messages, of which two are delivered and one is put off.
// One of each size is there when the key changes, if it does. A sixth comes when the
// machine is whole again.
func (s *story) live() {
	s.submit(1, false)
	s.submit(2, true)
	s.deliver(queue.Delivered)
	s.deliver(queue.Deferred)
	s.submit(3, false)
	s.rotate()
	s.deliver(queue.Delivered)
	s.submit(4, true)
	s.submit(5, false)
}

func (s *story) said(err error) error {
	if err != nil && s.first == nil {
		s.first = err
	}
	s.last = err
	return err
}

// bodyOf is the body of a message: a large one in chunks of which every other shrinks.
func bodyOf(id queue.MessageID, large bool) []byte {
	line := id.String() + "\r\n"
	if !large {
		return []byte(strings.Repeat(line, 40))
	}
	body := make([]byte, 6*bodycode.ChunkSize+100)
	rand.NewChaCha8([32]byte{byte(id)}).Read(body)
	shrinks := strings.Repeat(line, bodycode.ChunkSize/len(line))
	for at := 0; at < len(body); at += 2 * bodycode.ChunkSize {
		copy(body[at:], shrinks)
	}
	return body
}

func isLarge(id queue.MessageID) bool { return id%2 == 0 }

func (s *story) submit(id queue.MessageID, large bool) {
	ctx := context.Background()
	sub := queue.Submission{
		Message:    queue.Message{ID: id, Sender: "a@x.example", Session: "5e55"},
		Recipients: []queue.Envelope{{Address: "b@y.example", Recipient: "b@y.example", Action: "out", Relay: true, Notify: "NEVER"}},
	}
	body := bodyOf(id, large)
	var err error
	if !large {
		err = s.q.Enqueue(ctx, sub, body)
	} else if w, failed := s.q.Create(ctx); failed != nil {
		err = failed
	} else {
		for rest := body; len(rest) > 0 && err == nil; rest = rest[min(len(rest), queue.InlineBody):] {
			_, err = w.Write(rest[:min(len(rest), queue.InlineBody)])
		}
		if err != nil {
			w.Abort()
		} else {
			err = w.Commit(ctx, sub)
		}
	}
	if s.said(err) != nil {
		s.refused[id] = err
		return
	}
	s.accepted[id] = true
	s.done("accepted", id)
}

// deliver gives one outcome to whatever there is.
func (s *story) deliver(o queue.Outcome) {
	// What could not be read is put off, and there is nothing to wait for.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	jobs, err := s.worker.Take(ctx, 1)
	if err != nil {
		return
	}
	id := jobs[0].Message.ID
	if o == queue.Delivered {
		s.taken[id] = true
		s.done("taken", id)
	}
	if s.said(s.worker.Done(context.Background(), []queue.Result{{ID: jobs[0].Envelopes[0].ID, Outcome: o}})) == nil && o == queue.Delivered {
		s.gone[id] = true
		s.done("gone", id)
	}
}

// revived opens a copy of the spool, as after the end of the process: nothing of
// the old handle is seen.
func (s *story) revived(t testing.TB, path string) *Store {
	t.Helper()
	dir := t.TempDir()
	copyTree(t, filepath.Dir(path), dir)
	store := open(t, filepath.Join(dir, filepath.Base(path)))
	s.form.opens(store)
	return store
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case d.IsDir():
			return os.MkdirAll(name, 0o700)
		case strings.HasSuffix(name, "-shm"):
			return nil // goes with the process
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(name, b, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
}

// kept checks what is there against what was promised.
func (s *story) kept(store *Store) error {
	rows, err := store.Find(context.Background(), queue.Query{Limit: 100})
	if err != nil {
		return err
	}
	there := map[queue.MessageID]bool{}
	for _, r := range rows {
		id := r.ID.Message
		there[id] = true
		if err := sameBody(store, id); err != nil {
			return err
		}
		if s.gone[id] {
			return fmt.Errorf("%s was recorded as delivered, and is there", id)
		}
		if why := s.refused[id]; why != nil && !errors.Is(why, queue.ErrBroken) {
			return fmt.Errorf("%s was refused (%w), and is there", id, why)
		}
	}
	for id := range s.accepted {
		if !there[id] && !s.taken[id] {
			return fmt.Errorf("%s was accepted, and is lost", id)
		}
	}
	return nil
}

func sameBody(store *Store, id queue.MessageID) error {
	b, err := store.Body(context.Background(), id)
	if err != nil {
		return err
	}
	defer b.Close()
	got := make([]byte, b.Size())
	if _, err := b.ReadAt(got, 0); err != nil {
		return err
	}
	if want := bodyOf(id, isLarge(id)); !bytes.Equal(got, want) {
		return fmt.Errorf("body of %s: %d bytes, not those that were accepted", id, len(got))
	}
	return nil
}

// long reports whether there is time to try everything (./test --long).
func long() bool { return os.Getenv("TABARD_LONG") != "" }

func ignore(string, queue.MessageID) {}

// The disk fails once, at the first thing it is asked to do, at the second, and
// so on: what was promised is there, what was refused is not. Whatever fails but
// a sync, the next message is taken again; after a failed sync nothing is.
func TestFaults(t *testing.T) {
	spool := t.TempDir()
	if err := open(t, filepath.Join(spool, "queue.db")).Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []fault{
		{"short write", writes, errShort},
		{"EIO on write", writes, errIO},
		{"no space", writes, errFull},
		{"failed sync", syncs, errIO},
		{"EIO on read", reads, errIO},
	} {
		for _, form := range forms(t) {
			t.Run(f.name+", "+form.name, func(t *testing.T) {
				t.Parallel()
				f.everywhere(t, spool, form)
			})
		}
	}
}

// fault is what a disk does instead of its work.
type fault struct {
	name  string
	class class
	err   error
}

// everywhere lets the fault strike at each point, or a sample of them.
func (f fault) everywhere(t *testing.T, spool string, form form) {
	m := &machine{}
	u := m.under(t)
	run := func(nth int) *story {
		path := filepath.Join(t.TempDir(), "queue.db")
		copyTree(t, spool, filepath.Dir(path))
		m.heal()
		s := tell(t, m, form, u, path, func() { m.arm(f.class, f.err, nth, false) }, ignore)
		store := s.revived(t, path)
		if err := s.kept(store); err != nil {
			t.Errorf("fault %d: %v", nth, err)
		}
		if s.endless {
			t.Errorf("fault %d: storing bodies anew did not end", nth)
		}
		if got := encodings(t, store); nth == 0 && got != form.end {
			t.Errorf("stored as %s, want %s", got, form.end)
		}
		return s
	}
	whole := run(0)
	if len(whole.accepted) != 6 || len(whole.gone) != 2 {
		t.Fatalf("without a fault: %v", whole.first)
	}
	stride := 1
	if !long() && f.class != syncs { // of which there are few, and each counts
		stride = max(1, whole.points/form.samples)
	}
	for nth := 1; nth <= whole.points; nth += stride {
		s := run(nth)
		if s.points < nth {
			continue // it did not strike: the story without a fault took longer, and had more syncs
		}
		if f.class == syncs {
			s.endedByFault(t, nth)
		} else if s.last != nil {
			t.Errorf("fault %d: it does not heal: %v", nth, s.last)
		}
		if f.err == errFull && s.first != nil && !errors.Is(s.first, rpc.ErrNoSpace) {
			t.Errorf("fault %d: the disk is full, and the queue says: %v", nth, s.first)
		}
	}
}

// endedByFault checks that nothing went on after a failed sync.
func (s *story) endedByFault(t *testing.T, nth int) {
	t.Helper()
	if err := s.q.Enqueue(context.Background(), queue.Submission{}, nil); err == nil {
		t.Error("taken")
	}
	if s.first != nil && !errors.Is(s.first, queue.ErrBroken) {
		t.Errorf("fault %d: %v", nth, s.first)
	}
	if !errors.Is(s.last, queue.ErrBroken) {
		t.Errorf("fault %d: the store went on after a failed sync: %v", nth, s.last)
	}
}

// A queue whose disk fails to sync ends, and says why; the next one finds all.
func TestRunEndsAfterAFailedSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	m := &machine{}
	var ran error
	s := tell(t, m, plainForm, m.under(t), path, func() {}, ignore)
	store, err := openOn(t.Context(), path, m.under(t))
	if err != nil {
		t.Fatal(err)
	}
	if s.q, err = queue.New(t.Context(), store, nobody{}, queue.Options{Logger: slog.New(slog.NewTextHandler(&s.log, nil))}); err != nil {
		t.Fatal(err)
	}
	m.arm(syncs, errIO, 1, false)
	s.submit(7, false)
	if ran = s.q.Run(t.Context()); !errors.Is(ran, queue.ErrBroken) {
		t.Errorf("Run: %v", ran)
	}
	if err := s.q.Close(); !errors.Is(err, queue.ErrBroken) {
		t.Errorf("Close: %v", err)
	}
	if !strings.Contains(s.log.String(), "queue storage failed") {
		t.Errorf("log: %s", s.log.String())
	}
	if s.accepted[7] {
		t.Error("what could not be synced was accepted")
	}
	if err := s.kept(s.revived(t, path)); err != nil {
		t.Error(err)
	}
}

// A store that cannot be opened for a fault opens when that is gone, with all that
// it had.
func TestFaultsWhileOpening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	m := &machine{}
	u := m.under(t)
	s := tell(t, m, plainForm, u, path, func() {}, ignore)
	for _, f := range []struct {
		class class
		err   error
	}{{writes, errIO}, {writes, errFull}, {syncs, errIO}, {reads, errIO}} {
		for nth := 1; nth < 4; nth++ {
			m.arm(f.class, f.err, nth, true)
			store, err := openOn(t.Context(), path, u)
			m.heal()
			if err == nil {
				err = store.Close()
			}
			if errors.Is(err, queue.ErrCorrupt) {
				t.Errorf("fault %v, %d: %v", f.err, nth, err)
			}
			if err := s.kept(s.revived(t, path)); err != nil {
				t.Errorf("fault %v, %d: %v", f.err, nth, err)
			}
		}
	}
}
