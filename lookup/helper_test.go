package lookup

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/backends/static"
	"tabard/internal/config"
	"tabard/table"
)

// memory is a table whose rows a test changes, and that fails when told to.
type memory struct {
	mu      sync.Mutex
	rows    map[table.Service]map[string]table.Row
	err     error
	asks    int
	changed func(table.Change) // nil: nobody watches
	watched chan struct{}      // closed when somebody does
}

func newMemory() *memory {
	return &memory{rows: make(map[table.Service]map[string]table.Row), watched: make(chan struct{})}
}

// Watch tells every change before the call that made it returns.
func (m *memory) Watch(ctx context.Context, changed func(table.Change)) error {
	changed(table.Change{})
	m.mu.Lock()
	m.changed = changed
	m.mu.Unlock()
	close(m.watched)
	<-ctx.Done()
	return nil
}

// tell says that a key changed; m.mu is held.
func (m *memory) tell(s table.Service, key string) {
	if m.changed != nil {
		m.changed(table.Change{Service: s, Key: key})
	}
}

func (m *memory) set(s table.Service, key string, row ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows[s] == nil {
		m.rows[s] = make(map[string]table.Row)
	}
	m.rows[s][key] = row
	m.tell(s, key)
}

func (m *memory) remove(s table.Service, key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rows[s], key)
	m.tell(s, key)
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
	m.tell(0, "") // as when a connection is lost
}

func (m *memory) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asks
}

func (m *memory) Lookup(_ context.Context, s table.Service, key string) (table.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asks++
	if m.err != nil {
		return nil, m.err
	}
	row, ok := m.rows[s][key]
	if !ok {
		return nil, table.ErrNotFound
	}
	return row, nil
}

func (m *memory) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	_, err := m.Lookup(ctx, s, key)
	return err == nil, err
}

func (m *memory) Fetch(_ context.Context, s table.Service) ([]table.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	var rows []table.Row
	for _, row := range m.rows[s] {
		rows = append(rows, row)
	}
	return rows, nil
}

func (m *memory) Close() error { return nil }

var errDown = errors.New("connection refused")

// fixture makes services. Tables declared as sqlite:/mem/NAME are the memory
// tables of that name.
type fixture struct {
	t      testing.TB
	mem    map[string]*memory
	log    *strings.Builder
	clock  func() time.Time
	ownUID int
}

func newFixture(t testing.TB) *fixture {
	return &fixture{t: t, mem: make(map[string]*memory), log: &strings.Builder{}, clock: time.Now}
}

func (f *fixture) table(name string) *memory {
	if f.mem[name] == nil {
		f.mem[name] = newMemory()
	}
	return f.mem[name]
}

func (f *fixture) open(ctx context.Context, c config.Table) (table.Backend, error) {
	if name, ok := strings.CutPrefix(c.Source, "/mem/"); ok {
		return f.table(name), nil
	}
	return static.Open(ctx, c, table.Options{})
}

// service makes a service of a configuration text.
func (f *fixture) service(text string) *Service {
	f.t.Helper()
	cfg, err := config.Parse("test.conf", []byte(text), config.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	s, err := New(f.t.Context(), Options{
		Config: cfg, Open: f.open, Hostname: "mx.example.org", Clock: func() time.Time { return f.clock() },
		Logger: slog.New(slog.NewTextHandler(f.log, nil)), OwnUID: f.ownUID,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, decl := range cfg.Tables {
		if m := f.mem[strings.TrimPrefix(decl.Source, "/mem/")]; m != nil && !decl.Cache.Off {
			<-m.watched
		}
	}
	f.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return s
}

// reply is a recipient's answer in short: the refusal, or the targets.
func reply(r RecipientReply, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	if r.Code != 0 {
		return strings.Join([]string{itoa(r.Code), r.Enhanced, r.Text}, " ")
	}
	var out []string
	for _, t := range r.Targets {
		kind := "local"
		if t.Relay {
			kind = "relay"
		}
		out = append(out, strings.TrimSuffix(strings.Join([]string{kind, t.Action, t.Address, t.User}, " "), " "))
	}
	return strings.Join(out, "; ")
}

func itoa(n int) string {
	return string([]byte{byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)})
}
