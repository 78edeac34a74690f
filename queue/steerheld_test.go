package queue_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// lingering is a store that is slow to say that mail with a damaged body is held.
type lingering struct {
	queue.Store
	held chan struct{} // closed when it is durable
	say  chan struct{}
}

func (s *lingering) Apply(ctx context.Context, changes []*queue.Change) error {
	err := s.Store.Apply(ctx, changes)
	for _, c := range changes {
		for _, u := range c.Update {
			if u.Hold != 0 {
				close(s.held)
				<-s.say
			}
		}
	}
	return err
}

// A retry of mail whose hold is durable, and not yet known to be, is not taken for done:
// nothing would come of it.
func TestRetryWhileItIsHeld(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	store, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	s := &lingering{Store: store, held: make(chan struct{}), say: make(chan struct{})}
	r := openOn(t, s, queue.Options{MaxBytes: 1}, &local{}) // bodies are read from the store
	r.enqueue(message("a@x.example", "b@y.example"), text)
	r.path = path
	r.edit("UPDATE messages SET body = CAST('X' || substr(body, 2) AS BLOB)")
	w := r.relayer()
	end := takesNothing(t, w)
	<-s.held
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	out, err := r.Steer(ctx, queue.Steer{Op: queue.OpRetry, Limit: 10})
	close(s.say)
	if err != nil || out.Count != 0 || len(out.Refused) != 1 || !out.Refused[0].Busy {
		t.Errorf("%+v, %v", out, err)
	}
	end()
}
