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

// registry holds every table by name, the built-in ones included.
type registry struct {
	byName map[config.TableRef]*table.Table
}

func openTables(ctx context.Context, o Options, hostname string, log *slog.Logger) (*registry, error) {
	r := &registry{byName: make(map[config.TableRef]*table.Table)}
	for name, b := range builtins(hostname) {
		r.byName[name] = table.New(string(name), b, o.Timeout)
	}
	for _, t := range o.Config.Tables {
		if _, taken := r.byName[config.TableRef(t.Name)]; taken {
			return nil, errors.Join(fmt.Errorf("%s: table %s is declared twice or built in", t.Pos, t.Name), r.close())
		}
		b := &reopening{decl: t, open: o.Open, log: log, clock: time.Now}
		if _, err := b.get(ctx); err != nil {
			log.Warn("table cannot be opened; its questions are temporary errors until it can", "table", t.Name, "error", err)
		}
		r.byName[config.TableRef(t.Name)] = table.New(t.Name, b, o.Timeout)
	}
	return r, nil
}

// get returns a table that the configuration names.
func (r *registry) get(name config.TableRef) (*table.Table, error) {
	t, ok := r.byName[name]
	if !ok {
		return nil, fmt.Errorf("table %q: %w", name, errUnknown)
	}
	return t, nil
}

func (r *registry) close() error {
	var errs []error
	for _, t := range r.byName {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

// reopening is a backend that is opened when it can be. Until then its answers
// are errors.
type reopening struct {
	decl  config.Table
	open  func(context.Context, config.Table) (table.Backend, error)
	log   *slog.Logger
	clock func() time.Time

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
		return nil, err
	}
	return b.Lookup(ctx, s, key)
}

// Check implements table.Backend.
func (r *reopening) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	b, err := r.get(ctx)
	if err != nil {
		return false, err
	}
	return b.Check(ctx, s, key)
}

// Fetch implements table.Backend.
func (r *reopening) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	b, err := r.get(ctx)
	if err != nil {
		return nil, err
	}
	return b.Fetch(ctx, s)
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
	_ table.Backend   = (*reopening)(nil)
	_ table.Pinger    = (*reopening)(nil)
	_ table.Validator = (*reopening)(nil)
)
