package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tabard/internal/rpc"
)

// Accepting implements Client.
func (q *Queue) Accepting() error { return q.store.Writable() }

// acceptingReply says why no message is taken; empty: it is.
type acceptingReply struct {
	_   struct{} `cbor:",toarray"`
	Why string
}

// Accepting serves Client.Accepting.
func (s *clientService) Accepting(c *rpc.Call[rpc.None], r *rpc.Reply[acceptingReply]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) (acceptingReply, error) {
		if err := s.client.Accepting(); err != nil {
			return acceptingReply{Why: err.Error()}, nil
		}
		return acceptingReply{}, nil
	})
}

const (
	acceptingFresh = time.Second // how long an answer is believed
	acceptingWait  = 5 * time.Second
)

// accepting is what the queue behind a connection said last. It is asked beside: who
// wants to know does not wait, and is told at the end of the data at the latest.
type accepting struct {
	mu     sync.Mutex
	why    error
	asked  time.Time
	asking bool
}

// Accepting implements Client, from what the queue said a second ago, or when it was
// asked last.
func (c *remoteClient) Accepting() error {
	a := &c.accepting
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.asking && time.Since(a.asked) > acceptingFresh {
		a.asking = true
		go c.ask()
	}
	return a.why
}

func (c *remoteClient) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), acceptingWait)
	defer cancel()
	reply, err := rpc.Invoke[rpc.None, acceptingReply](ctx, c.caller, "Queue.Accepting", rpc.None{})
	a := &c.accepting
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asking, a.asked = false, time.Now()
	switch {
	case err != nil:
		a.why = nil // it is away, which is another matter, and no reason yet
	case reply.Why != "":
		a.why = fmt.Errorf("%w: %w", ErrReadOnly, errors.New(reply.Why))
	default:
		a.why = nil
	}
}
