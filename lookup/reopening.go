package lookup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

// reopenAfter is the shortest time between two attempts to open a table.
const reopenAfter = time.Second

// reopening is a backend that is opened when it can be. Until then its answers
// are errors.
type reopening struct {
	decl   config.Table
	open   func(context.Context, config.Table) (table.Backend, error)
	health *health
	log    *slog.Logger
	clock  func() time.Time

	mu      sync.Mutex
	backend table.Backend
	tried   time.Time
	err     error
	closed  bool
}

// get returns the backend, trying to open it unless that failed just now.
func (r *reopening) get(ctx context.Context) (table.Backend, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, errors.New("closed")
	case r.backend != nil:
		return r.backend, nil
	case r.err != nil && r.clock().Sub(r.tried) < reopenAfter:
		return nil, r.err
	}
	b, err := r.open(ctx, r.decl)
	if err != nil {
		r.err, r.tried = fmt.Errorf("open: %w", err), r.clock()
		r.health.lost(r.err)
		return nil, r.err
	}
	if r.err != nil {
		r.log.Info("table opened", "table", r.decl.Name)
	}
	r.backend, r.err = b, nil
	return b, nil
}

// Lookup implements table.Backend.
func (r *reopening) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	b, err := r.get(ctx)
	if err != nil {
		r.health.note(err)
		return nil, err
	}
	row, err := b.Lookup(ctx, s, key)
	r.health.note(err)
	return row, err
}

// Check implements table.Backend.
func (r *reopening) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	b, err := r.get(ctx)
	if err != nil {
		r.health.note(err)
		return false, err
	}
	ok, err := b.Check(ctx, s, key)
	r.health.note(err)
	return ok, err
}

// Fetch implements table.Backend.
func (r *reopening) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	b, err := r.get(ctx)
	if err != nil {
		r.health.note(err)
		return nil, err
	}
	rows, err := b.Fetch(ctx, s)
	r.health.note(err)
	return rows, err
}

// Ping implements table.Pinger.
func (r *reopening) Ping(ctx context.Context) error {
	b, err := r.get(ctx)
	if err != nil {
		return err
	}
	if p, ok := b.(table.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// Validate implements table.Validator.
func (r *reopening) Validate(ctx context.Context, s table.Service) error {
	b, err := r.get(ctx)
	if err != nil {
		return err
	}
	if v, ok := b.(table.Validator); ok {
		return v.Validate(ctx, s)
	}
	return nil
}

// Watch implements table.Watcher.
func (r *reopening) Watch(ctx context.Context, changed func(table.Change)) error {
	b, err := r.get(ctx)
	if err != nil {
		return err
	}
	w, ok := b.(table.Watcher)
	if !ok {
		return table.ErrUnsupported
	}
	var first sync.Once
	err = w.Watch(ctx, func(c table.Change) {
		first.Do(r.health.answers)
		changed(c)
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, table.ErrUnsupported) {
		r.health.lost(err)
	}
	return err
}

// Authenticates implements table.Authenticator.
func (r *reopening) Authenticates(ctx context.Context) (bool, error) {
	b, err := r.get(ctx)
	if err != nil {
		return false, err
	}
	if a, ok := b.(table.Authenticator); ok {
		return a.Authenticates(ctx)
	}
	return false, nil
}

// Authenticate implements table.Authenticator.
func (r *reopening) Authenticate(ctx context.Context, user, password string) (bool, error) {
	b, err := r.get(ctx)
	if err != nil {
		r.health.note(err)
		return false, err
	}
	a, ok := b.(table.Authenticator)
	if !ok {
		return false, table.ErrUnsupported
	}
	r.health.logins.Add(1)
	ok, err = a.Authenticate(ctx, user, password)
	r.health.note(err)
	return ok, err
}

// Close implements table.Backend.
func (r *reopening) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.backend == nil {
		return nil
	}
	return r.backend.Close()
}

var (
	_ table.Backend = (*reopening)(nil)
	_ table.Pinger  = (*reopening)(nil)
	_ table.Watcher = (*reopening)(nil)

	_ table.Authenticator = (*reopening)(nil)
	_ table.Validator     = (*reopening)(nil)
)
