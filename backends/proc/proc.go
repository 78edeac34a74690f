// Package proc answers from programs that speak OpenSMTPD's table protocol 0.1
// over their standard input and output: `proc:/path/program args`, or TYPE:/path,
// which runs table-TYPE.
//
// A program is asked only for the services that it registered. Many questions are
// in flight at once, told apart by their ids. One that ends, says nothing while it
// is asked, or says what it should not is killed and started again, with a growing
// pause; its questions are temporary errors meanwhile. It never takes us down.
package proc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

// How soon a program is started again.
const (
	minPause = 100 * time.Millisecond // after the first failure; then twice as long each time
	maxPause = 10 * time.Second
	// goodLife is how long a program has lived whose end is no sign of a fault.
	goodLife = time.Minute
)

// maxFetch bounds a list that is fetched element by element.
const maxFetch = 1000

// Table is a program.
type Table struct {
	name string
	log  *slog.Logger
	find func() (command, error)

	mu       sync.Mutex
	cur      *child // nil: not started, or ended
	began    time.Time
	failures int
	next     time.Time // not before this is it started again
	err      error     // of the last failure
	closed   bool
}

var (
	_ table.Backend       = (*Table)(nil)
	_ table.Pinger        = (*Table)(nil)
	_ table.Watcher       = (*Table)(nil)
	_ table.Authenticator = (*Table)(nil)
)

// Open begins to start the program. One that cannot start is a temporary error of
// every question, and is tried again.
func Open(_ context.Context, c config.Table, o table.Options) (table.Backend, error) {
	if c.Kind == "proc" {
		if _, err := commandOf(c); err != nil {
			return nil, err
		}
	}
	t := &Table{name: c.Name, log: o.Logger(), find: func() (command, error) { return commandOf(c) }}
	_, _ = t.child() // an error is told by the first question
	return t, nil
}

// child returns the program, and starts it when it may be started.
func (t *Table) child() (*child, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, os.ErrClosed
	}
	if t.cur != nil {
		select {
		case <-t.cur.dead:
			t.failed(t.cur.err)
			t.cur = nil
		default:
			return t.cur, nil
		}
	}
	now := time.Now()
	if now.Before(t.next) {
		return nil, fmt.Errorf("the program is down: %w", t.err)
	}
	cmd, err := t.find()
	if err == nil {
		t.cur, err = launch(t.name, cmd, t.log)
	}
	if err != nil {
		t.failed(err)
		return nil, err
	}
	t.began = now
	return t.cur, nil
}

// failed notes a failure; t.mu is held.
func (t *Table) failed(err error) {
	if time.Since(t.began) > goodLife {
		t.failures = 0
	}
	pause := min(maxPause, minPause<<min(t.failures, 10))
	t.failures++
	t.err, t.next = err, time.Now().Add(pause)
	t.log.Warn("table program failed; it is started again", "table", t.name, "after", pause, "error", err)
}

// usable returns the program when it has registered.
func (t *Table) usable(ctx context.Context) (*child, error) {
	c, err := t.child()
	if err != nil {
		return nil, err
	}
	select {
	case <-c.ready:
		return c, nil
	case <-c.dead:
		return nil, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (t *Table) ask(ctx context.Context, o op, s table.Service, key string) (reply, error) {
	c, err := t.usable(ctx)
	if err != nil {
		return reply{}, err
	}
	return c.ask(ctx, o, s, key)
}

// Lookup returns the value of key as one column.
func (t *Table) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	r, err := t.ask(ctx, opLookup, s, key)
	if err != nil {
		return nil, err
	}
	if !r.found {
		return nil, table.ErrNotFound
	}
	return table.Row{r.value}, nil
}

// Check asks the program, whose matching rules these are.
func (t *Table) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	r, err := t.ask(ctx, opCheck, s, key)
	return r.found, err
}

// Fetch asks for one element after the other until one comes again: the protocol
// gives them in turn, without a beginning or an end.
func (t *Table) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	var rows []table.Row
	seen := make(map[string]bool)
	for len(rows) < maxFetch {
		r, err := t.ask(ctx, opFetch, s, "")
		if err != nil {
			return nil, err
		}
		if !r.found || seen[r.value] {
			return rows, nil
		}
		seen[r.value] = true
		rows = append(rows, table.Row{r.value})
	}
	return nil, fmt.Errorf("the program lists more than %d elements", maxFetch)
}

// Authenticates implements table.Authenticator.
func (t *Table) Authenticates(ctx context.Context) (bool, error) {
	c, err := t.usable(ctx)
	if err != nil {
		return false, err
	}
	return c.can.services[table.Auth], nil
}

// Authenticate asks whether "user:password" is in the table. The program cuts at
// the first colon, so that a user whose name has one is nobody.
func (t *Table) Authenticate(ctx context.Context, user, password string) (bool, error) {
	if strings.Contains(user, ":") {
		return false, nil
	}
	return t.Check(ctx, table.Auth, user+":"+password)
}

// Ping reports why the program cannot be asked.
func (t *Table) Ping(ctx context.Context) error {
	_, err := t.usable(ctx)
	return err
}

// Watch tells what a program tells that registered "changed".
func (t *Table) Watch(ctx context.Context, changed func(table.Change)) error {
	c, err := t.usable(ctx)
	if err != nil {
		return err
	}
	if !c.can.changed {
		return table.ErrUnsupported
	}
	ch := make(chan table.Change, 256)
	c.mu.Lock()
	c.watch[ch] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watch, ch)
		c.mu.Unlock()
	}()
	changed(table.Change{})
	for {
		select {
		case change, ok := <-ch:
			if !ok {
				return errors.New("more changes at once than can be followed")
			}
			changed(change)
		case <-c.dead:
			return c.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends the program.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.cur != nil {
		t.cur.end(os.ErrClosed)
	}
	return nil
}
