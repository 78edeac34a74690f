package queue_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// tidied is a store that tells when it is tidied.
type tidied struct {
	*sqlite.Store
	more chan bool // the answers
}

func (s *tidied) Tidy(context.Context) (bool, error) {
	more, ok := <-s.more
	if !ok {
		return true, errors.New("asked again")
	}
	return more, nil
}

// TestTidied: once nobody waits, the store is tidied, until there is no more to do
// or somebody comes.
func TestTidied(t *testing.T) {
	t.Parallel()
	store, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := &tidied{Store: store, more: make(chan bool)}
	q, err := queue.New(context.Background(), s, &local{}, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(s.more)
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := q.Enqueue(context.Background(), message("a@b.example", "x@one.example"), []byte("body")); err != nil {
		t.Fatal(err)
	}
	for _, more := range []bool{true, true, false} {
		s.more <- more
	}
	select {
	case s.more <- true:
		t.Error("a tidy store is tidied again")
	default:
	}
}
