package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tabard/backends/sqltable"
)

const (
	// maxAge ends connections, so that several servers share the load again after
	// one of them was away.
	maxAge  = 30 * time.Minute
	maxIdle = 5 * time.Minute
	// patience is how long a question waits for a connection to a server that
	// was not reachable a moment ago.
	patience = 500 * time.Millisecond
	// How soon another attempt to connect follows one that failed.
	minBackoff = 10 * time.Millisecond
	maxBackoff = 250 * time.Millisecond
	// maxMessage bounds one row, as it is on the wire.
	maxMessage = 3 * sqltable.MaxBytes
)

// link is a connection.
type link struct {
	*pgx.Conn
	born, used time.Time
	sets       map[*sqltable.Query]set // how each query is asked for several keys
}

// pool keeps a few connections. One attempt to connect is made at a time, and
// those who need a connection wait for it together: however many ask a server
// that is down, it sees one caller, and none of them waits for longer than
// patience once that is known.
type pool struct {
	config  *pgx.ConnConfig
	size    int
	timeout time.Duration // of a question
	checked bool          // target_session_attrs looks at the session

	life context.Context // ends by close
	end  context.CancelFunc
	work sync.WaitGroup

	mu         sync.Mutex
	idle       []*link       // the one used last is last
	open       int           // idle and in use
	connecting bool          // an attempt is being made, or about to be
	failures   int           // attempts that failed, one after the other
	failed     time.Time     // when the last one did
	down       error         // why there is no connection, as far as known
	plain      bool          // the server takes no session settings: a proxy
	wake       chan struct{} // closed and replaced when something above changes
}

func newPool(config *pgx.ConnConfig, size int, timeout time.Duration) *pool {
	p := &pool{config: config, size: size, timeout: timeout, checked: config.ValidateConnect != nil, wake: make(chan struct{})}
	p.life, p.end = context.WithCancel(context.Background())
	dialer := &net.Dialer{
		Timeout:         config.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	config.DialFunc = dialer.DialContext
	config.MaxProtocolMessageBodyLen = maxMessage
	return p
}

// notify wakes those who wait; p.mu is held.
func (p *pool) notify() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// acquire returns a connection, which the caller releases.
func (p *pool) acquire(ctx context.Context) (*link, error) {
	failures := -1
	var patient <-chan time.Time
	for {
		p.mu.Lock()
		if p.life.Err() != nil {
			p.mu.Unlock()
			return nil, os.ErrClosed
		}
		if l := p.pop(); l != nil {
			p.mu.Unlock()
			return l, nil
		}
		if failures < 0 {
			failures = p.failures
		}
		if p.open == 0 && p.failures > failures {
			err := p.down
			p.mu.Unlock()
			return nil, err
		}
		if !p.connecting && p.open < p.size {
			p.connecting = true
			p.work.Go(p.connect)
		}
		wake, down := p.wake, p.down
		dead := down != nil && p.open == 0
		p.mu.Unlock()
		if dead && patient == nil {
			patient = time.After(patience)
		}
		select {
		case <-wake:
		case <-patient:
			return nil, down
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), down)
		}
	}
}

// pop returns an idle connection that is fit for use; p.mu is held.
func (p *pool) pop() *link {
	for len(p.idle) > 0 {
		l := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if !l.IsClosed() && time.Since(l.born) < maxAge && time.Since(l.used) < maxIdle {
			return l
		}
		p.discard(l)
	}
	return nil
}

// discard closes a connection that belongs to nobody; p.mu is held.
func (p *pool) discard(l *link) {
	p.open--
	p.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = l.Close(ctx) // nothing can be lost
	})
}

// release gives a connection back. What broke it broke those that were idle too:
// they are not tried one after the other.
func (p *pool) release(l *link, broken bool) {
	l.used = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.notify()
	if broken || l.IsClosed() || p.life.Err() != nil {
		p.discard(l)
		for _, other := range p.idle {
			p.discard(other)
		}
		p.idle = nil
		return
	}
	p.idle = append(p.idle, l)
}

// stalled says that the server did not answer in time: those who find no
// connection do not wait for long.
func (p *pool) stalled(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down == nil && p.open <= 1 {
		p.down = err
	}
}

// connect makes one attempt, not too soon after the one before.
func (p *pool) connect() {
	p.mu.Lock()
	pause := time.Duration(0)
	if p.failures > 0 {
		pause = min(minBackoff<<min(p.failures-1, 10), maxBackoff) - time.Since(p.failed)
	}
	p.mu.Unlock()
	select {
	case <-p.life.Done():
	case <-time.After(pause):
	}
	l, err := p.dial(p.life, p.config)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.notify()
	p.connecting = false
	if err != nil {
		p.failures++
		p.failed = time.Now()
		p.down = err
		return
	}
	p.failures, p.down = 0, nil
	p.open++
	p.idle = append(p.idle, l)
}

// dial connects and sets the session up. A proxy that takes no settings at the
// start, as PgBouncer, is asked without.
func (p *pool) dial(ctx context.Context, config *pgx.ConnConfig) (*link, error) {
	p.mu.Lock()
	plain := p.plain
	p.mu.Unlock()
	hosts := time.Duration(1 + len(config.Fallbacks))
	ctx, cancel := context.WithTimeout(ctx, hosts*config.ConnectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, p.session(config, plain))
	if refused := (*pgconn.PgError)(nil); !plain && errors.As(err, &refused) && refused.Code == "08P01" {
		conn, err = pgx.ConnectConfig(ctx, p.session(config, true))
		if err == nil {
			p.mu.Lock()
			p.plain = true
			p.mu.Unlock()
		}
	}
	if err != nil {
		return nil, err
	}
	if p.checked && !p.isPlain() && config.RuntimeParams[readOnly] == "" {
		// Only now: target_session_attrs looks at the same setting.
		if _, err := conn.Exec(ctx, "SET "+readOnly+" = on"); err != nil {
			_ = conn.Close(ctx) // the first error tells
			return nil, fmt.Errorf("set up the session: %w", err)
		}
	}
	now := time.Now()
	return &link{Conn: conn, born: now, used: now, sets: make(map[*sqltable.Query]set)}, nil
}

func (p *pool) isPlain() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plain
}

const readOnly = "default_transaction_read_only"

// session returns config with what is set for every session, unless the source
// says otherwise.
func (p *pool) session(config *pgx.ConnConfig, plain bool) *pgx.ConnConfig {
	c := config.Copy()
	ours := map[string]string{"statement_timeout": fmt.Sprint(p.timeout.Milliseconds()), readOnly: "on", "client_encoding": "UTF8"}
	if p.checked {
		delete(ours, readOnly)
	}
	for name, value := range ours {
		if _, ok := c.RuntimeParams[name]; !ok && !plain {
			c.RuntimeParams[name] = value
		}
	}
	return c
}

// close ends what is being asked, and every connection.
func (p *pool) close() {
	p.mu.Lock()
	p.end()
	for _, l := range p.idle {
		p.discard(l)
	}
	p.idle = nil
	p.notify()
	p.mu.Unlock()
	p.work.Wait()
}

// do runs f with a connection, and again with another one when the first turned
// out to be broken. It returns when ctx ends, whatever f does then: a caller who
// gives up costs no connection.
func (p *pool) do(ctx context.Context, f func(context.Context, *link) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	p.mu.Lock()
	if p.life.Err() != nil {
		p.mu.Unlock()
		return os.ErrClosed
	}
	p.work.Go(func() { done <- p.run(ctx, f) })
	p.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pool) run(caller context.Context, f func(context.Context, *link) error) error {
	// The server gives up first, and keeps the connection.
	limit := p.timeout + time.Second
	ctx, cancel := context.WithTimeout(p.life, limit)
	defer cancel()
	// Whoever gave up waits for no connection.
	waits, stop := context.WithTimeout(caller, limit)
	defer stop()
	for again := false; ; again = true {
		began := time.Now()
		l, err := p.acquire(waits)
		if err != nil {
			return err
		}
		err = f(ctx, l)
		broken, stale := err != nil && (l.IsClosed() || lost(err)), outdated(err)
		if broken && ctx.Err() != nil {
			p.stalled(fmt.Errorf("the server does not answer: %w", err))
		}
		if stale {
			clear(l.sets)
		}
		p.release(l, broken)
		if !broken && !stale || again || ctx.Err() != nil || time.Since(began) > time.Second {
			return err
		}
	}
}

// lost reports whether an error says that the connection is of no more use: it
// failed, or the server shuts down.
func lost(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return pgconn.SafeToRetry(err)
	}
	return strings.HasPrefix(e.Code, "08") || slices.Contains([]string{"57P01", "57P02", "57P03"}, e.Code)
}

// outdated reports whether what was prepared is gone, or has changed its columns.
// The next try prepares it anew.
func outdated(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "26000" || e.Code == "0A000" && strings.Contains(e.Message, "cached plan"))
}
