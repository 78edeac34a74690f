package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tabard/table"
)

// source is a backend of one text per key, whose changes are told by hand.
type source struct {
	mu      sync.Mutex
	rows    map[string]string
	asked   int
	err     error
	delay   time.Duration
	gate    chan struct{} // not nil: answers that were read wait for it
	watches int
	tell    func(table.Change)
	lose    chan error
	noWatch bool
}

func newSource(rows map[string]string) *source {
	return &source{rows: rows, lose: make(chan error)}
}

func (s *source) answer(ctx context.Context, key string) (string, bool, error) {
	s.mu.Lock()
	s.asked++
	v, ok := s.rows[key]
	err, delay, gate := s.err, s.delay, s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return "", false, ctx.Err()
		}
	}
	return v, ok, err
}

func (s *source) Lookup(ctx context.Context, _ table.Service, key string) (table.Row, error) {
	v, ok, err := s.answer(ctx, key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, table.ErrNotFound
	}
	return table.Row{v}, nil
}

func (s *source) Check(ctx context.Context, _ table.Service, key string) (bool, error) {
	_, ok, err := s.answer(ctx, key)
	return ok, err
}

func (s *source) Fetch(ctx context.Context, _ table.Service) ([]table.Row, error) {
	v, ok, err := s.answer(ctx, "")
	if !ok || err != nil {
		return nil, err
	}
	return []table.Row{{v}}, nil
}

func (s *source) Close() error { return nil }

func (s *source) Watch(ctx context.Context, changed func(table.Change)) error {
	s.mu.Lock()
	s.watches++
	noWatch := s.noWatch
	s.tell = changed
	s.mu.Unlock()
	if noWatch {
		return table.ErrUnsupported
	}
	changed(table.Change{})
	select {
	case err := <-s.lose:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (s *source) set(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[key] = value
}

func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// pass lets the time of a world pass.
func pass(d time.Duration) { <-time.After(d) }

// world runs a test with a cache in front of a source, in a time of its own.
func world(t *testing.T, src *source, o Options, f func(t *testing.T, c *Cache)) {
	synctest.Test(t, func(t *testing.T) {
		src.lose = make(chan error) // of this bubble
		c, err := New(src, o)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f(t, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// want asks and compares; "" means not found.
func want(t *testing.T, c *Cache, key, value string) {
	t.Helper()
	row, err := c.Lookup(t.Context(), table.Alias, key)
	switch {
	case errors.Is(err, table.ErrNotFound) && value == "":
	case err != nil || row[0] != value:
		t.Errorf("lookup %q: %q, %v; want %q", key, row, err, value)
	}
}

func TestKeepsWhatIsTold(t *testing.T) {
	src := newSource(map[string]string{"a": "1", "": "list"})
	world(t, src, Options{}, func(t *testing.T, c *Cache) {
		for range 3 {
			want(t, c, "a", "1")
			want(t, c, "none", "")
			if ok, err := c.Check(t.Context(), table.Alias, "a"); !ok || err != nil {
				t.Errorf("check: %v, %v", ok, err)
			}
			if rows, err := c.Fetch(t.Context(), table.Source); len(rows) != 1 || err != nil {
				t.Errorf("fetch: %v, %v", rows, err)
			}
			pass(time.Hour)
		}
		if n := src.count(); n != 4 {
			t.Errorf("asked %d times, want 4", n)
		}
		s := c.Stats()
		if s.Hits != 8 || s.Misses != 4 || s.Watch.State != WatchTold || s.Entries != 4 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		change            table.Change
		alias, other, dom bool // asked again: alias a, alias b, domain check
	}{
		{table.Change{}, true, true, true},
		{table.Change{Service: table.Alias}, true, true, false},
		{table.Change{Service: table.Alias, Key: "A"}, true, false, false},
		{table.Change{Service: table.Credentials, Key: "a"}, false, false, false},
		{table.Change{Service: table.Domain, Key: "a.example"}, false, false, true},
		{table.Change{Service: table.Domain, Key: "b.example"}, false, false, false},
		{table.Change{Service: table.Domain, Key: "*.example"}, false, false, true},
		{table.Change{Service: table.MailAddr, Key: "x"}, false, false, false},
		{table.Change{Service: 200}, true, true, true},
	} {
		t.Run(fmt.Sprint(tt.change), func(t *testing.T) {
			src := newSource(map[string]string{"a": "1", "b": "1"})
			world(t, src, Options{}, func(t *testing.T, c *Cache) {
				asks := func(f func()) bool {
					before := src.count()
					f()
					return src.count() > before
				}
				alias := func() { want(t, c, "a", "1") }
				other := func() { want(t, c, "b", "1") }
				dom := func() { _, _ = c.Check(t.Context(), table.Domain, "a.example") }
				alias()
				other()
				dom()
				src.tell(tt.change)
				if got := asks(alias); got != tt.alias {
					t.Errorf("alias a asked again: %v", got)
				}
				if got := asks(other); got != tt.other {
					t.Errorf("alias b asked again: %v", got)
				}
				if got := asks(dom); got != tt.dom {
					t.Errorf("domain asked again: %v", got)
				}
			})
		})
	}
}

// An answer that was read before a change and arrives after it is not kept.
func TestChangeOvertakesAnswer(t *testing.T) {
	for _, change := range []table.Change{{}, {Service: table.Alias}, {Service: table.Alias, Key: "a"}} {
		src := newSource(map[string]string{"a": "old"})
		world(t, src, Options{}, func(t *testing.T, c *Cache) {
			src.gate = make(chan struct{})
			go func() { _, _ = c.Lookup(context.Background(), table.Alias, "a") }()
			synctest.Wait() // read, on its way
			src.set("a", "new")
			src.tell(change)
			got := make(chan string)
			go func() {
				row, err := c.Lookup(context.Background(), table.Alias, "a")
				got <- fmt.Sprint(row, err)
			}()
			synctest.Wait()
			close(src.gate)
			if v := <-got; v != "[new] <nil>" {
				t.Errorf("%v: asked after the change: %s", change, v)
			}
			want(t, c, "a", "new")
		})
	}
}

func TestTTL(t *testing.T) {
	for _, tt := range []struct {
		name         string
		noWatch      bool
		ttl          time.Duration
		lives, dies  time.Duration // of a positive answer
		nLives, nDie time.Duration // of a negative one
	}{
		{"never told", true, 0, DefaultTTL - 1, DefaultTTL, DefaultNegativeTTL - 1, DefaultNegativeTTL},
		{"never told, short", true, time.Second, time.Second - 1, time.Second, time.Second - 1, time.Second},
		{"told, with a ttl", false, time.Minute, time.Minute - 1, time.Minute, time.Minute - 1, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := newSource(map[string]string{"a": "1"})
			src.noWatch = tt.noWatch
			world(t, src, Options{TTL: tt.ttl}, func(t *testing.T, c *Cache) {
				again := func(key, value string, after time.Duration) bool {
					want(t, c, key, value)
					want(t, c, key, value)
					pass(after)
					before := src.count()
					want(t, c, key, value)
					pass(time.Hour) // everything expires
					return src.count() > before
				}
				if again("a", "1", tt.lives) || !again("a", "1", tt.dies) {
					t.Error("positive answer lives for another time")
				}
				if again("none", "", tt.nLives) || !again("none", "", tt.nDie) {
					t.Error("negative answer lives for another time")
				}
			})
		})
	}
}

func TestOneQuestionForAll(t *testing.T) {
	src := newSource(map[string]string{"a": "1"})
	src.delay = time.Second
	world(t, src, Options{}, func(t *testing.T, c *Cache) {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { want(t, c, "a", "1") })
		}
		// One who gives up does not take the others with him.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Lookup(ctx, table.Alias, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		wg.Wait()
		if n := src.count(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestStale(t *testing.T) {
	src := newSource(map[string]string{"a": "1", "b": "1"})
	world(t, src, Options{}, func(t *testing.T, c *Cache) {
		want(t, c, "a", "1")
		want(t, c, "b", "1")
		want(t, c, "none", "")
		down := errors.New("down")
		src.fail(down)
		src.lose <- down
		synctest.Wait()
		ctx := WithOrigin(t.Context())
		origin := OriginOf(ctx)
		if row, err := c.Lookup(ctx, table.Alias, "a"); err != nil || row[0] != "1" || !origin.Stale() || origin.StaleNegative() {
			t.Errorf("stale: %v, %v, %v", row, err, origin.Stale())
		}
		if _, err := c.Lookup(ctx, table.Alias, "none"); !errors.Is(err, table.ErrNotFound) || !origin.StaleNegative() {
			t.Errorf("stale negative: %v, %v", err, origin.StaleNegative())
		}
		if _, err := c.Lookup(ctx, table.Alias, "unknown"); !errors.Is(err, down) {
			t.Errorf("unknown: %v", err)
		}
		// A key known to have changed is not known any more.
		pass(time.Minute) // watched again by now
		src.set("b", "2")
		src.tell(table.Change{Service: table.Alias, Key: "b"})
		if _, err := c.Lookup(ctx, table.Alias, "b"); !errors.Is(err, down) {
			t.Errorf("changed: %v", err)
		}
		src.fail(nil)
		pass(retryAfter)
		want(t, c, "b", "2")
		want(t, c, "none", "")
		if s := c.Stats(); s.Down || s.Stale != 2 {
			t.Errorf("stats %+v", s)
		}
		src.fail(down)
		src.tell(table.Change{})
		pass(DefaultStaleTTL)
		if _, err := c.Lookup(ctx, table.Alias, "a"); !errors.Is(err, down) {
			t.Errorf("after stale-ttl: %v", err)
		}
	})
}

// While a backend hangs, those who know an answer wait for a moment at first and
// then not at all.
func TestSlow(t *testing.T) {
	src := newSource(map[string]string{"a": "1"})
	world(t, src, Options{}, func(t *testing.T, c *Cache) {
		want(t, c, "a", "1")
		src.mu.Lock()
		src.delay = time.Minute
		src.mu.Unlock()
		src.tell(table.Change{})
		for _, wait := range []time.Duration{staleWait, 0, 0} {
			began := time.Now()
			want(t, c, "a", "1")
			if took := time.Since(began); took != wait {
				t.Errorf("took %v, want %v", took, wait)
			}
		}
		if !c.Stats().Down {
			t.Error("does not count as down")
		}
		pass(time.Minute) // the questions on their way end
	})
}

// A row that cannot be read is its own key's fault alone.
func TestOneBadRow(t *testing.T) {
	src := newSource(map[string]string{"a": "1"})
	world(t, src, Options{}, func(t *testing.T, c *Cache) {
		want(t, c, "a", "1")
		for range 5 {
			src.fail(errors.New("not UTF-8"))
			if _, err := c.Lookup(t.Context(), table.Alias, "bad"); err == nil {
				t.Error("no error")
			}
			src.fail(nil)
			src.tell(table.Change{})
			want(t, c, "a", "1")
		}
		if s := c.Stats(); s.Stale != 0 || s.Down {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestFresh(t *testing.T) {
	src := newSource(map[string]string{"a": "1"})
	src.noWatch = true
	world(t, src, Options{}, func(t *testing.T, c *Cache) {
		want(t, c, "a", "1")
		src.set("a", "2")
		want(t, c, "a", "1")
		if row, err := c.Lookup(Fresh(t.Context()), table.Alias, "a"); err != nil || row[0] != "2" {
			t.Errorf("fresh: %v, %v", row, err)
		}
		want(t, c, "a", "2")
	})
}

func TestBounded(t *testing.T) {
	src := newSource(map[string]string{})
	src.noWatch = true
	c, err := New(src, Options{Size: 100 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 5000 {
		want(t, c, fmt.Sprint("key", i), "")
	}
	c.entries.CleanUp()
	if s := c.Stats(); s.Bytes > 100<<10 || s.Entries == 0 {
		t.Errorf("stats %+v", s)
	}
}

// Readers never see a value older than the last one whose change was told before
// they asked.
func TestNeverOld(t *testing.T) {
	src := newSource(map[string]string{"a": "0"})
	c, err := New(src, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for c.Stats().Watch.State != WatchTold {
		time.Sleep(time.Millisecond)
	}
	var told atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := told.Load()
				row, err := c.Lookup(context.Background(), table.Alias, "a")
				var got int64
				if err == nil {
					_, err = fmt.Sscan(row[0], &got)
				}
				if err != nil || got < least {
					t.Errorf("got %v, %v; %d was told", row, err, least)
					return
				}
			}
		})
	}
	changes := []table.Change{{}, {Service: table.Alias}, {Service: table.Alias, Key: "a"}}
	for i := int64(1); i <= 3000; i++ {
		src.set("a", fmt.Sprint(i))
		src.tell(changes[i%3])
		told.Store(i)
	}
	close(stop)
	wg.Wait()
}

func TestSeesChanges(t *testing.T) {
	src := newSource(nil)
	world(t, src, Options{}, func(t *testing.T, c *Cache) {
		told, err := c.Changes(t.Context(), 0)
		if err != nil || len(told) != 1 || told[0].Change != (table.Change{}) {
			t.Fatalf("at first: %v, %v", told, err)
		}
		after := told[0].Seq
		type result struct {
			told []Told
			err  error
		}
		seen := make(chan result)
		next := func(ctx context.Context) {
			told, err := c.Changes(ctx, after)
			seen <- result{told, err}
		}
		go next(t.Context())
		synctest.Wait()
		want := table.Change{Service: table.Cert, Key: "mx.example.org"}
		src.tell(want)
		if r := <-seen; r.err != nil || len(r.told) != 1 || r.told[0].Change != want || r.told[0].Seq != after+1 || c.LastChange() != after+1 {
			t.Errorf("saw %v, %v", r.told, r.err)
		}
		for range 2 * journalLen {
			src.tell(want)
		}
		if told, err := c.Changes(t.Context(), after); len(told) != journalLen || err != nil || told[0].Seq != after+2+journalLen {
			t.Errorf("%d remembered, first %+v, %v", len(told), told[0], err)
		}
		after = c.LastChange()
		ctx, cancel := context.WithCancel(t.Context())
		go next(ctx)
		synctest.Wait()
		cancel()
		if r := <-seen; !errors.Is(r.err, context.Canceled) {
			t.Errorf("cancelled: %v", r.err)
		}
	})
	src = newSource(nil)
	src.noWatch = true
	world(t, src, Options{}, func(t *testing.T, c *Cache) {
		if _, err := c.Changes(t.Context(), 0); !errors.Is(err, table.ErrUnsupported) {
			t.Errorf("never told: %v", err)
		}
	})
}

func BenchmarkCached(b *testing.B) {
	src := newSource(map[string]string{})
	for i := range 10000 {
		src.rows[fmt.Sprint("key", i)] = "value"
	}
	c, err := New(src, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	keys := make([]string, 10000)
	for i := range keys {
		keys[i] = fmt.Sprint("key", i)
	}
	ask := func(b *testing.B, lookup func(context.Context, table.Service, string) (table.Row, error)) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, err := lookup(b.Context(), table.Alias, keys[i%len(keys)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("itself", func(b *testing.B) { ask(b, c.Lookup) })
	b.Run("by its table", func(b *testing.B) { ask(b, table.New("t", c, 0).Lookup) })
}
