package queue

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"tabard/internal/rpc"
)

// maxIdle is how long a peer may let a message or a body wait that it writes or reads in
// pieces. smtpd gives a client an hour for a whole message.
const maxIdle = 2 * time.Hour

// handles are the things that the peer on one connection uses call by call under a
// number: messages that it writes or imports, bodies that it reads. They are bounded in
// number, end when they are not used for long, and end with the connection. The zero
// value is not of use.
type handles[T any] struct {
	what string        // for errors, as in "no such message"
	most int           // at once
	idle time.Duration // unused for so long one ends
	end  func(T)       // ends one that was not ended by its own last use

	mu     sync.Mutex
	open   map[int64]*handle[T]
	closed bool
}

// handle is one thing in use.
type handle[T any] struct {
	it T

	mu    sync.Mutex // held by who uses it
	ended bool
	used  time.Time
	timer *time.Timer
}

// add gives a thing a number. When there are too many, it ends at once.
func (s *handles[T]) add(it T) (int64, error) {
	id, ok := s.enter(it)
	if !ok {
		s.end(it)
		return 0, fmt.Errorf("%w: %d times %s", rpc.ErrBusy, s.most, s.what)
	}
	return id, nil
}

func (s *handles[T]) enter(it T) (id int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= s.most {
		return 0, false
	}
	if s.open == nil {
		s.open = make(map[int64]*handle[T])
	}
	// Random, so that a number of a connection before is not one of this.
	for id == 0 || s.open[id] != nil {
		id = rand.Int64()
	}
	h := &handle[T]{it: it, used: time.Now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(s.idle, func() { s.expire(id, h) })
	s.open[id] = h
	return id, true
}

// use runs f with a thing, of which there is one use at a time. An error ends it.
func (s *handles[T]) use(id int64, f func(T) error) error {
	return s.with(id, func(h *handle[T]) error {
		err := f(h.it)
		if err != nil {
			s.drop(id, h)
		}
		return err
	})
}

// last runs f, with which a thing ends by itself.
func (s *handles[T]) last(id int64, f func(T) error) error {
	return s.with(id, func(h *handle[T]) error {
		h.ended = true
		h.timer.Stop()
		defer s.forget(id) // until then it counts
		return f(h.it)
	})
}

// remove ends a thing.
func (s *handles[T]) remove(id int64) error {
	return s.with(id, func(h *handle[T]) error {
		s.drop(id, h)
		return nil
	})
}

func (s *handles[T]) with(id int64, f func(*handle[T]) error) error {
	s.mu.Lock()
	h := s.open[id]
	s.mu.Unlock()
	if h == nil {
		return fmt.Errorf("%w: no such %s", rpc.ErrInvalid, s.what)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return fmt.Errorf("%w: the %s has ended", rpc.ErrInvalid, s.what)
	}
	err := f(h)
	h.used = time.Now()
	return err
}

// drop ends a thing that has not ended. It needs the thing's mu.
func (s *handles[T]) drop(id int64, h *handle[T]) {
	if h.ended {
		return
	}
	h.ended = true
	h.timer.Stop()
	s.forget(id)
	s.end(h.it)
}

// forget takes a number back.
func (s *handles[T]) forget(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// expire ends a thing that nobody has used for long.
func (s *handles[T]) expire(id int64, h *handle[T]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if left := s.idle - time.Since(h.used); left > 0 && !h.ended {
		h.timer.Reset(left)
		return
	}
	s.drop(id, h)
}

// close ends what is left, and lets nothing in any more.
func (s *handles[T]) close() {
	s.mu.Lock()
	s.closed = true
	left := s.open
	s.open = nil
	s.mu.Unlock()
	for id, h := range left {
		h.mu.Lock()
		s.drop(id, h)
		h.mu.Unlock()
	}
}
