package ldap

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errClosed = errors.New("table is closed")

const (
	// searchConns is how many connections serve searches.
	searchConns = 2
	// patience is how long a silent connection is asked again.
	patience = time.Second
	// Between attempts to connect that failed.
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// pool shares a few connections among all questions, and makes them anew. There
// is never more than one attempt to connect at a time.
type pool struct {
	dialer *dialer
	end    context.Context // closed pools stop connecting
	stop   context.CancelFunc

	mu      sync.Mutex
	conns   [searchConns]*conn
	attempt *attempt
	backoff time.Duration
	after   time.Time // no attempt before
	running sync.WaitGroup
}

// attempt is one try to connect, which any number of questions wait for.
type attempt struct {
	done  chan struct{}
	began time.Time // of dialling, after the backoff; valid after done
	ended time.Time
	err   error
}

func newPool(d *dialer) *pool {
	p := &pool{dialer: d}
	p.end, p.stop = context.WithCancel(context.Background())
	return p
}

// get returns a connection; the caller gives it back by put.
func (p *pool) get(ctx context.Context) (*conn, error) {
	arrived := time.Now()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c, a := p.pick()
		if c != nil {
			return c, nil
		}
		if a == nil {
			return nil, errClosed
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		// A refusal from before the question came says nothing of now.
		if a.err != nil && (!a.began.Before(arrived) || a.ended.Sub(a.began) > patience) {
			return nil, a.err
		}
	}
}

// pick returns the connection that is used least, or an attempt to wait for. A
// second one is made only when the first is busy.
func (p *pool) pick() (*conn, *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end.Err() != nil {
		return nil, nil
	}
	var best *conn
	empty := false
	for i, c := range p.conns {
		switch {
		case c == nil:
			empty = true
		case c.lost(patience):
			if c.stuck.Load() != 0 {
				c.server.failed.Store(time.Now().UnixNano())
			}
			c.kill()
			p.conns[i] = nil
			empty = true
		case best == nil || c.using < best.using:
			best = c
		}
	}
	if empty && (best == nil || best.using > 0) && p.attempt == nil {
		p.attempt = &attempt{done: make(chan struct{})}
		p.running.Add(1)
		go p.connect(p.attempt)
	}
	if best == nil {
		return nil, p.attempt
	}
	best.using++
	return best, nil
}

// connect fills an empty place.
func (p *pool) connect(a *attempt) {
	defer p.running.Done()
	p.mu.Lock()
	wait := time.Until(p.after)
	p.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-p.end.Done():
		}
	}
	began := time.Now()
	c, err := p.dialer.connect(p.end, true)
	if err == nil {
		p.dialer.schema.look(p.end, c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a.began, a.ended, a.err = began, time.Now(), err
	p.attempt = nil
	close(a.done)
	if err != nil {
		p.backoff = min(max(2*p.backoff, minBackoff), maxBackoff)
		p.after = time.Now().Add(p.backoff)
		return
	}
	p.backoff = 0
	for i := range p.conns {
		if p.conns[i] == nil && p.end.Err() == nil {
			p.conns[i] = c
			return
		}
	}
	c.kill() // the pool was closed meanwhile
}

// put gives a connection back.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	c.using--
	p.mu.Unlock()
}

// drop gives a connection back that is of no use any more.
func (p *pool) drop(c *conn) {
	p.mu.Lock()
	c.using--
	for i := range p.conns {
		if p.conns[i] == c {
			p.conns[i] = nil
		}
	}
	p.mu.Unlock()
	c.kill()
}

// close ends all connections and attempts.
func (p *pool) close() {
	p.stop()
	p.running.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.conns {
		if c != nil {
			c.kill()
			p.conns[i] = nil
		}
	}
}
