package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// DefaultTimeout bounds one question to a backend.
const DefaultTimeout = 10 * time.Second

// Options is what every kind of backend is opened with.
type Options struct {
	Log   *slog.Logger // nil: nothing is logged
	Delim string       // smtp sub-addr-delim; empty: "+"
}

// Logger returns Log, or one that discards.
func (o Options) Logger() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// Delimiter returns Delim, or "+".
func (o Options) Delimiter() string {
	if o.Delim == "" {
		return "+"
	}
	return o.Delim
}

// Pinger is implemented by backends that can say whether their source is
// reachable and fit for use: the question that check asks.
type Pinger interface {
	Ping(ctx context.Context) error
}

// Validator is implemented by backends whose entries are read differently per
// service. Validate reports the first entry that the service cannot read, such
// as a pattern that does not compile. check asks it for each service in use.
type Validator interface {
	Validate(ctx context.Context, s Service) error
}

// Table is a declared table: a backend with a name. It brings keys to their
// normal form, gives every question a deadline, and says in errors what was
// asked of whom. It is safe for concurrent use.
type Table struct {
	name    string
	backend Backend
	timeout time.Duration
}

// New returns the table called name. A timeout of 0 is DefaultTimeout.
func New(name string, b Backend, timeout time.Duration) *Table {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Table{name: name, backend: b, timeout: timeout}
}

// Name returns the declared name, without angle brackets.
func (t *Table) Name() string { return t.name }

// Backend returns what answers.
func (t *Table) Backend() Backend { return t.backend }

// Lookup asks for the row of key exactly; ErrNotFound when there is none. Every
// other error is temporary.
func (t *Table) Lookup(ctx context.Context, s Service, key string) (Row, error) {
	k, err := NormalKey(s, key)
	if err != nil {
		return nil, t.fail(s, key, err)
	}
	ctx, cancel := within(ctx, t.timeout)
	defer cancel()
	row, err := t.backend.Lookup(ctx, s, k)
	if err != nil {
		err = t.fail(s, key, err)
		t.note(ctx, s, key, false, nil, err)
		return nil, err
	}
	t.note(ctx, s, key, true, []Row{row}, nil)
	return row, nil
}

// Check asks whether key is in the table by the rules of the service. An error
// is temporary.
func (t *Table) Check(ctx context.Context, s Service, key string) (bool, error) {
	k, err := NormalKey(s, key)
	if err != nil {
		return false, t.fail(s, key, err)
	}
	ctx, cancel := within(ctx, t.timeout)
	defer cancel()
	ok, err := t.backend.Check(ctx, s, k)
	if errors.Is(err, ErrNotFound) {
		ok, err = false, nil
	}
	if err != nil {
		ok, err = false, t.fail(s, key, err)
	}
	t.note(ctx, s, key, ok, nil, err)
	return ok, err
}

// Fetch returns all rows of a service that is a list, in a stable order. An
// error is temporary.
func (t *Table) Fetch(ctx context.Context, s Service) ([]Row, error) {
	ctx, cancel := within(ctx, t.timeout)
	defer cancel()
	rows, err := t.backend.Fetch(ctx, s)
	if err != nil {
		err = fmt.Errorf("table %s: %s: %w", t.name, s, err)
		t.note(ctx, s, "", false, nil, err)
		return nil, err
	}
	t.note(ctx, s, "", len(rows) > 0, rows, nil)
	return rows, nil
}

// Ping reports why the table could not answer now; nil when it can, or when
// its kind has nothing to reach.
func (t *Table) Ping(ctx context.Context) error {
	p, ok := t.backend.(Pinger)
	if !ok {
		return nil
	}
	ctx, cancel := within(ctx, t.timeout)
	defer cancel()
	if err := p.Ping(ctx); err != nil {
		return fmt.Errorf("table %s: %w", t.name, err)
	}
	return nil
}

// Validate reports the first entry that the service cannot read.
func (t *Table) Validate(ctx context.Context, s Service) error {
	v, ok := t.backend.(Validator)
	if !ok {
		return nil
	}
	if err := v.Validate(ctx, s); err != nil {
		return fmt.Errorf("table %s: %s: %w", t.name, s, err)
	}
	return nil
}

// Close closes the backend.
func (t *Table) Close() error {
	if err := t.backend.Close(); err != nil {
		return fmt.Errorf("table %s: %w", t.name, err)
	}
	return nil
}

// fail says what was asked. The key of auth holds a password: only the user
// name before it is shown.
func (t *Table) fail(s Service, key string, err error) error {
	if s == Auth {
		key, _, _ = strings.Cut(key, ":")
	}
	const shown = 100
	if len(key) > shown {
		key = key[:shown] + "..."
	}
	return fmt.Errorf("table %s: %s %q: %w", t.name, s, key, err)
}
