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
	// Encodings counts the messages by how their bodies are stored, those that are not
	// stored as they are. That is quick.
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
	q.settleBodies()
}

// settleBodies ends holds of mail whose body can be opened again, and says what is
// missing for that of others.
func (q *Queue) settleBodies() {
	q.goWhile(func() {
		q.releaseOwn(q.ctx)
		q.miss(q.ctx)
	})
}

// miss says what is missing for mail that is here.
func (q *Queue) miss(ctx context.Context) {
	stored, err := q.store.Encodings(ctx)
	if err != nil && ctx.Err() == nil {
		q.log.Error("how bodies are stored is not known", "error", err)
	}
	for _, s := range stored {
		if !s.Encoding.Known() {
			q.log.Error("messages are stored in a way that this version does not know: they wait until one runs that does", "encoding", string(s.Encoding), "messages", s.Messages)
			continue
		}
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

// await keeps items back until their bodies can be opened, by a hold of the queue's
// own. They do not expire meanwhile: it is no fault of the mail. Needs active.mu.
func (q *Queue) await(items []*item, kind HoldKind, what string, why error) {
	reason := "name its file with queue encryption"
	if kind == HoldEncoding {
		reason = "a newer version of Tabard stored it"
	}
	want, err := Hold{Kind: kind, Value: what, Reason: reason}.normal()
	if err != nil { // what says how the body is stored is no such thing
		q.hold(items, why)
		return
	}
	if i := q.findHold(want.Kind, want.Value); i >= 0 {
		q.suspend(items, q.holds[i])
		return
	}
	id := holdID{want.Kind, want.Value}
	others, asked := q.awaiting[id]
	if q.awaiting[id] = append(others, items...); !asked {
		q.goWhile(func() { q.holdOwn(want) })
	}
}

// holdID tells one hold from the others.
type holdID struct {
	Kind  HoldKind
	Value string
}

// holdOwn makes a hold of the queue's own, and keeps back by it what waits for that.
func (q *Queue) holdOwn(want Hold) {
	h, err := q.Hold(q.ctx, want)
	for ; err != nil; h, err = q.Hold(q.ctx, want) {
		q.log.Error("queue hold not stored", "error", err)
		if !sleep(q.ctx, suspendWait) {
			return // found again at the next start
		}
	}
	id := holdID{want.Kind, want.Value}
	q.active.mu.Lock()
	q.suspend(q.awaiting[id], &h)
	delete(q.awaiting, id)
	q.active.mu.Unlock()
	if q.opens(&h) { // since the body was asked for
		q.releaseOwn(q.ctx)
	}
}

// opens reports whether what a hold of the queue's own waits for is there.
func (q *Queue) opens(h *Hold) bool {
	switch h.Kind {
	case HoldKey:
		return q.hasKey(h.Value)
	case HoldEncoding:
		return bodycode.Encoding(h.Value).Known()
	}
	return false
}

// releaseOwn ends the holds of the queue's own that wait for nothing any more.
func (q *Queue) releaseOwn(ctx context.Context) {
	if q.store.Writable() != nil {
		return
	}
	q.active.mu.Lock()
	var back []Hold
	for _, h := range q.holds {
		if q.opens(h) {
			back = append(back, *h)
		}
	}
	q.active.mu.Unlock()
	for _, h := range back {
		for {
			_, err := q.Release(ctx, h.Kind, h.Value)
			if err == nil || errors.Is(err, rpc.ErrNotFound) {
				break
			}
			q.log.Error("mail whose body can be opened again is still held", string(h.Kind), h.Value, "error", err)
			if !sleep(ctx, suspendWait) {
				return
			}
		}
	}
}
