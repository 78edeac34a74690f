package socketmap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tabard/backends/static"
	"tabard/internal/config"
	"tabard/table"
	"tabard/table/tabletest"
)

// server speaks the protocol's other side.
type server struct {
	l        net.Listener
	answer   func(name, key string) string // the reply; a leading "raw:" is sent as it is
	accepted atomic.Int64
	mu       sync.Mutex
	conns    []net.Conn
}

func serve(t testing.TB, network, address string, answer func(name, key string) string) *server {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{l: l, answer: answer}
	go s.accept()
	t.Cleanup(s.stop)
	return s
}

func (s *server) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.accepted.Add(1)
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				question, err := readNetstring(r)
				if err != nil {
					return
				}
				name, key, _ := strings.Cut(question, " ")
				reply := s.answer(name, key)
				if raw, ok := strings.CutPrefix(reply, "raw:"); ok {
					_, _ = c.Write([]byte(raw))
					continue
				}
				_, _ = c.Write([]byte(netstring(reply)))
			}
		}()
	}
}

// drop closes every connection, as a server that is started anew does.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

func (s *server) stop() {
	_ = s.l.Close()
	s.drop()
}

func open(t testing.TB, source string) *table.Table {
	t.Helper()
	b, err := Open(t.Context(), config.Table{Name: "maps", Source: source}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tab := table.New("maps", b, 0)
	t.Cleanup(func() { tab.Close() })
	return tab
}

// What cannot be asked this way is matched by the server: it gets the data's
// matching rules from static.
func TestSuite(t *testing.T) {
	tabletest.Run(t, func(t *testing.T, d tabletest.Data) table.Backend {
		var pairs []config.KeyVal
		var list []string
		for _, r := range d.Records {
			pairs = append(pairs, config.KeyVal{Key: r.Key, Value: r.Text(d.Service)})
			list = append(list, r.Key)
		}
		data := static.NewMap(pairs, table.Options{})
		if !d.Mapping {
			data = static.NewList(list, table.Options{})
		}
		socket := filepath.Join(t.TempDir(), "s")
		serve(t, "unix", socket, func(name, key string) string {
			if name != "map-"+d.Service.String() {
				return "PERM no such map"
			}
			if table.Walked(d.Service) {
				if ok, err := data.Check(context.Background(), d.Service, key); ok && err == nil {
					return "OK " + key
				}
				return "NOTFOUND "
			}
			row, err := data.Lookup(context.Background(), d.Service, key)
			if err != nil {
				return "NOTFOUND "
			}
			return "OK " + row[0]
		})
		b := open(t, "unix:"+socket+":map-%s").Backend()
		if d.Service == table.Source || d.Service == table.RelayHost && !d.Mapping {
			return listed{b, data} // a list cannot be asked of a socketmap
		}
		return b
	})
}

// listed answers Fetch from elsewhere.
type listed struct {
	table.Backend
	data *static.Table
}

func (l listed) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	return l.data.Fetch(ctx, s)
}

func TestReplies(t *testing.T) {
	s := serve(t, "tcp", "127.0.0.1:0", func(_, key string) string {
		if raw, ok := strings.CutPrefix(key, "raw "); ok {
			return "raw:" + raw
		}
		return key
	})
	tab := open(t, "inet:"+s.l.Addr().String()+":aliases")
	tests := []struct{ key, want string }{
		{"OK a, b", "a, b"},
		{"OK ", ""},
		{"NOTFOUND ", "error: not found"},
		{"NOTFOUND", "error: not found"},
		{"TEMP later", `error: the server says TEMP "later"`},
		{"TIMEOUT slow", `error: the server says TIMEOUT "slow"`},
		{"PERM never", `error: the server says PERM "never"`},
		{"MAYBE x", "error: the server broke the protocol"},
		{"OK \xff", "error: the server broke the protocol"},
		{"raw 3:OK ;", "error: the server broke the protocol"},
		{"raw x", "error: the server broke the protocol"},
		{"raw :", "error: the server broke the protocol"},
		{"raw 99999999:", "error: the server broke the protocol"},
		{"raw 100001:", "error: the server broke the protocol"},
		{"OK " + strings.Repeat("x", 900), strings.Repeat("x", 900)},
	}
	b := tab.Backend()
	for _, tt := range tests {
		row, err := b.Lookup(t.Context(), table.Alias, tt.key)
		got := strings.Join(row, "|")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want && (err == nil || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%.40q: %.80s; want %.80s", tt.key, got, tt.want)
		}
		if strings.HasPrefix(tt.want, "error") != (err != nil) || (tt.want == "error: not found") != errors.Is(err, table.ErrNotFound) {
			t.Errorf("%.40q: %v", tt.key, err)
		}
	}
	if _, err := b.Lookup(t.Context(), table.Auth, "a:b"); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("auth: %v", err)
	}
	if _, err := b.Fetch(t.Context(), table.Source); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("fetch: %v", err)
	}
}

// A server that was started anew is asked again without an error; one that is
// down is a temporary error, at once, and heals.
func TestHeals(t *testing.T) {
	answer := func(_, key string) string { return "OK " + key }
	s := serve(t, "tcp", "127.0.0.1:0", answer)
	address := s.l.Addr().String()
	tab := open(t, "inet:"+address+":m")
	ask := func() error {
		row, err := tab.Lookup(t.Context(), table.Alias, "a")
		if err == nil && row[0] != "a" {
			t.Errorf("got %q", row)
		}
		return err
	}
	for range 3 {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("%d connections for one caller", n)
	}
	s.drop()
	if err := ask(); err != nil {
		t.Errorf("after the server closed the connection: %v", err)
	}
	s.stop()
	for range 20 {
		if err := ask(); err == nil || errors.Is(err, table.ErrNotFound) {
			t.Errorf("down: %v", err)
		}
	}
	if err := tab.Ping(t.Context()); err == nil {
		t.Error("down: no error of Ping")
	}
	serve(t, "tcp", address, answer)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ask() != nil {
		if ctx.Err() != nil {
			t.Fatal("did not heal")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Callers do not wait for each other, and one who gives up gets his error.
func TestConcurrent(t *testing.T) {
	gate := make(chan struct{})
	s := serve(t, "tcp", "127.0.0.1:0", func(_, key string) string {
		if key == "slow" {
			<-gate
		}
		return "OK " + key
	})
	tab := open(t, "inet:"+s.l.Addr().String()+":m")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := tab.Lookup(ctx, table.Alias, "slow"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("slow: %v", err)
		}
	})
	for i := range 100 {
		wg.Go(func() {
			key := fmt.Sprint("k", i)
			if row, err := tab.Lookup(t.Context(), table.Alias, key); err != nil || row[0] != key {
				t.Errorf("%s: %q, %v", key, row, err)
			}
		})
	}
	wg.Wait()
	close(gate)
	if n := s.accepted.Load(); n > maxConns+1 {
		t.Errorf("%d connections", n)
	}
}

func TestParseSource(t *testing.T) {
	for source, want := range map[string]string{
		"inet:127.0.0.1:1234:map":   "tcp 127.0.0.1:1234 map",
		"inet:[::1]:1234:map-%s":    "tcp [::1]:1234 map-%s",
		"inet:host.example:smtp:m":  "tcp host.example:smtp m",
		"unix:/run/podop.socket:al": "unix /run/podop.socket al",
		"/run/maps":                 "unix /run/maps maps",
		"inet:host:1234":            "error",
		"inet:1234:map":             "error",
		"unix:run/x:map":            "error",
		"unix:/run/x:":              "error",
		"tcp:host:1:map":            "error",
		"inet:host:1:a b":           "error",
		"":                          "error",
	} {
		network, address, name, err := parseSource(source, "maps")
		got := strings.Join([]string{network, address, name}, " ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", source, got, want)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"4:OK x,", "9:NOTFOUND ,", "0:,", "1:", "07:TEMP a ,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := readNetstring(bufio.NewReader(strings.NewReader(s)))
		if err != nil {
			return
		}
		if len(text) > maxReply {
			t.Errorf("%d bytes", len(text))
		}
		if again, err := readNetstring(bufio.NewReader(strings.NewReader(netstring(text)))); err != nil || again != text {
			t.Errorf("%q: %q, %v", text, again, err)
		}
		_, _ = parseReply(text)
	})
}

func BenchmarkLookup(b *testing.B) {
	s := serve(b, "tcp", "127.0.0.1:0", func(_, key string) string { return "OK " + key })
	tab := open(b, "inet:"+s.l.Addr().String()+":m")
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := tab.Lookup(b.Context(), table.Alias, "a"); err != nil {
				b.Error(err)
			}
		}
	})
}
