package queue

import (
	"context"
	"errors"

	"tabard/internal/bodycode"
	"tabard/internal/rpc"
)

// CodedStore is the part of a Store that compresses and encrypts bodies.
type CodedStore interface {
	// SetCoder says how bodies are stored from now on, and what opens those that
	// are there. Before it is called they are stored as they are.
	SetCoder(c *bodycode.Coder)
	// Encode brings the body of a message that is not staged into the form in which
	// Apply stores it. It is called by many at once.
	Encode(m *NewMessage) error
	// Encodings counts the messages by how their bodies are stored.
	Encodings(ctx context.Context) ([]EncodingCount, error)
	// Recode makes the present form of up to limit bodies that are stored as from,
	// after a message, in order of id, for Apply to put in their places. It is called
	// by one at a time. None at all: there are no more.
	Recode(ctx context.Context, from bodycode.Encoding, after MessageID, limit int) ([]Recoded, error)
}

// EncodingCount is how many messages are stored in one way.
type EncodingCount struct {
	Encoding bodycode.Encoding
	Messages int64
}

// Recoded is a body that is to be stored in another way.
type Recoded struct {
	ID       MessageID
	From, To bodycode.Encoding
	Body     []byte // if it is not in a file
	File     string // if it is in one: that of the new form, durable already
	Old      string // and that of the old form, which goes when the change is durable
	Err      error  // it could not be made: there is nothing to apply
}

// SetCoder says how the bodies of messages are stored that come from now on, and what
// opens those that are here. Mail that waited for a key which c has is due.
func (q *Queue) SetCoder(c *bodycode.Coder) {
	q.epochs.next(func() {
		q.store.SetCoder(c)
		q.coder.Store(c)
	})
	q.goWhile(func() {
		q.releaseKeys(q.ctx)
		q.missKeys(q.ctx)
	})
}

// missKeys says which keys are missing for mail that is here.
func (q *Queue) missKeys(ctx context.Context) {
	stored, err := q.store.Encodings(ctx)
	if err != nil && ctx.Err() == nil {
		q.log.Error("how bodies are stored is not known", "error", err)
	}
	for _, s := range stored {
		if key := s.Encoding.Key(); key != "" && !q.hasKey(key) {
			q.log.Error("messages are encrypted under a key that is missing: they wait until it is back", "key", key, "messages", s.Messages)
		}
	}
}

// hasKey reports whether a key is at hand.
func (q *Queue) hasKey(id string) bool {
	c := q.coder.Load()
	return c != nil && c.HasKey(id)
}

// awaitKey keeps items back until their key is there. They do not expire meanwhile:
// that a key is missing is no fault of the mail. Needs active.mu.
func (q *Queue) awaitKey(items []*item, key string) {
	q.goWhile(func() {
		want := Hold{Kind: HoldKey, Value: key, Reason: "name its file with queue encryption"}
		h, err := q.Hold(q.ctx, want)
		for ; err != nil; h, err = q.Hold(q.ctx, want) {
			q.log.Error("queue hold not stored", "error", err)
			if !sleep(q.ctx, suspendWait) {
				return // found again at the next start
			}
		}
		q.active.mu.Lock()
		q.suspend(items, &h)
		q.active.mu.Unlock()
		if q.hasKey(key) { // since the body was asked for
			q.releaseKeys(q.ctx)
		}
	})
}

// releaseKeys ends the holds of keys that are there.
func (q *Queue) releaseKeys(ctx context.Context) {
	q.active.mu.Lock()
	var back []string
	for _, h := range q.holds {
		if h.Kind == HoldKey && q.hasKey(h.Value) {
			back = append(back, h.Value)
		}
	}
	q.active.mu.Unlock()
	for _, key := range back {
		for {
			_, err := q.Release(ctx, HoldKey, key)
			if err == nil || errors.Is(err, rpc.ErrNotFound) {
				break
			}
			q.log.Error("mail whose key is back is still held", "key", key, "error", err)
			if !sleep(ctx, suspendWait) {
				return
			}
		}
	}
}
