package mta

import (
	"context"
	"sync"
)

// limiter gives out a number of places under each key, first come first served,
// with a bounded line of those who wait.
type limiter struct {
	places, line int
	mu           sync.Mutex
	at           map[string]*room
}

type room struct {
	used int
	line []chan struct{}
}

func newLimiter(places, line int) *limiter {
	return &limiter{places: places, line: line, at: make(map[string]*room)}
}

// acquire takes a place, waiting for one if it must: until ctx ends, or not at
// all (errBusy) when the line is full. release gives it back.
func (l *limiter) acquire(ctx context.Context, key string) error {
	l.mu.Lock()
	r := l.at[key]
	if r == nil {
		r = &room{}
		l.at[key] = r
	}
	if r.used < l.places {
		r.used++
		l.mu.Unlock()
		return nil
	}
	if len(r.line) >= l.line {
		l.mu.Unlock()
		return errBusy
	}
	turn := make(chan struct{})
	r.line = append(r.line, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		l.giveUp(key, r, turn)
		return ctx.Err()
	}
}

// giveUp leaves the line, or passes on the place that came at the last moment.
func (l *limiter) giveUp(key string, r *room, turn chan struct{}) {
	l.mu.Lock()
	for i, t := range r.line {
		if t == turn {
			r.line = append(r.line[:i], r.line[i+1:]...)
			l.mu.Unlock()
			return
		}
	}
	l.mu.Unlock()
	l.release(key)
}

// full reports whether a caller of acquire would have to wait.
func (l *limiter) full(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.at[key]
	return r != nil && r.used >= l.places
}

func (l *limiter) release(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.at[key]
	if len(r.line) > 0 {
		close(r.line[0])
		r.line = r.line[1:]
		return
	}
	if r.used--; r.used == 0 {
		delete(l.at, key)
	}
}
