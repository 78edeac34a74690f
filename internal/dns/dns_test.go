package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/dns"
	"tabard/internal/dns/dnstest"
)

const zone = `
example.org.        MX 20 b.example.org.
example.org.        MX 10 a1.example.org.
example.org.        MX 10 a2.example.org.
a1.example.org.     A 192.0.2.1
a1.example.org.     A 192.0.2.2
a1.example.org.     AAAA 2001:db8::1
a2.example.org.     AAAA 2001:db8::2
b.example.org.      A 192.0.2.3
null.example.       MX 0 .
self.example.       MX 10 localhost.
partly.example.     MX 0 .
partly.example.     MX 10 a1.example.org.
implicit.example.   A 192.0.2.9
alias.example.      CNAME middle.example.
middle.example.     CNAME example.org.
dangling.example.   CNAME nowhere.invalid.
loop.example.       CNAME pool.example.
pool.example.       CNAME loop.example.
hostile.example.    MX 10 evil\010host.example.
hostile.example.    MX 10 192.0.2.7.
mixed.example.      MX 10 a\032b.example.
mixed.example.      MX 20 b.example.org.
mapped.example.     AAAA ::ffff:192.0.2.1
xn--bcher-kva.example. MX 10 b.example.org.
1.2.0.192.in-addr.arpa. PTR a1.example.org.
3.2.0.192.in-addr.arpa. PTR a1.example.org.
4.2.0.192.in-addr.arpa. PTR gone.example.
5.2.0.192.in-addr.arpa. PTR bad\013\010name.example.
6.2.0.192.in-addr.arpa. CNAME 6.0\/25.2.0.192.in-addr.arpa.
6.0\/25.2.0.192.in-addr.arpa. PTR six.example.
six.example. A 192.0.2.6
7.2.0.192.in-addr.arpa. PTR gone.example.
7.2.0.192.in-addr.arpa. PTR seven.example.
seven.example. A 192.0.2.7
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR a1.example.org.
`

func start(t *testing.T, zone string) (*dnstest.Server, *dns.Resolver) {
	t.Helper()
	srv := dnstest.Start(t, zone)
	return srv, dns.New(dns.Config{Servers: []string{srv.Addr()}, Timeout: 200 * time.Millisecond})
}

func mxText(list []dns.MX) string {
	var out []string
	for _, mx := range list {
		out = append(out, fmt.Sprintf("%d %s", mx.Pref, mx.Host))
	}
	// Hosts of one preference come in random order.
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestMX(t *testing.T) {
	_, r := start(t, zone)
	tests := []struct {
		domain, want string
		err          error
	}{
		{"example.org", "10 a1.example.org, 10 a2.example.org, 20 b.example.org", nil},
		{"EXAMPLE.ORG.", "10 a1.example.org, 10 a2.example.org, 20 b.example.org", nil},
		{"alias.example", "10 a1.example.org, 10 a2.example.org, 20 b.example.org", nil},
		{"null.example", "", dns.ErrNullMX},
		{"self.example", "", dns.ErrNullMX},
		{"partly.example", "10 a1.example.org", nil},
		{"implicit.example", "0 implicit.example", nil},
		{"bücher.example", "10 b.example.org", nil},
		{"localhost", "0 localhost", nil},
		{"nowhere.invalid", "", dns.ErrNXDomain},
		{"dangling.example", "", dns.ErrNXDomain},
		{"loop.example", "", dns.ErrTemporary},
		{"hostile.example", "", dns.ErrTemporary},
		{"mixed.example", "20 b.example.org", nil},
		{"192.0.2.1", "", dns.ErrNXDomain},
		{"a b.example", "", dns.ErrNXDomain},
		{strings.Repeat("x", 300), "", dns.ErrNXDomain},
		{"", "", dns.ErrNXDomain},
	}
	for _, tt := range tests {
		t.Run(tt.domain, func(t *testing.T) {
			got, err := r.MX(t.Context(), tt.domain)
			if mxText(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("MX = %s, %v; want %s, %v", mxText(got), err, tt.want, tt.err)
			}
		})
	}
}

func TestMXBestFirstShuffled(t *testing.T) {
	_, r := start(t, zone)
	first := make(map[string]bool)
	for range 200 {
		list, err := r.MX(t.Context(), "example.org")
		if err != nil || list[2].Host != "b.example.org" {
			t.Fatalf("MX = %v, %v; want b.example.org last", list, err)
		}
		first[list[0].Host] = true
	}
	if len(first) != 2 {
		t.Errorf("200 answers began with %v only", first)
	}
}

func TestAddrs(t *testing.T) {
	_, r := start(t, zone)
	tests := []struct {
		host, want string
		err        error
	}{
		{"a2.example.org", "2001:db8::2", nil},
		{"b.example.org", "192.0.2.3", nil},
		{"null.example", "", dns.ErrNoData},
		{"gone.example", "", dns.ErrNXDomain},
		{"mapped.example", "", dns.ErrNoData},
		{"localhost", "127.0.0.1 ::1", nil},
		{"192.0.2.77", "192.0.2.77", nil},
		{"2001:db8::77", "2001:db8::77", nil},
		{"::ffff:192.0.2.1", "192.0.2.1", nil},
		{"evil\nhost", "", dns.ErrNXDomain},
	}
	for _, tt := range tests {
		got, err := r.Addrs(t.Context(), tt.host)
		if text := addrText(got); text != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Addrs(%q) = %s, %v; want %s, %v", tt.host, text, err, tt.want, tt.err)
		}
	}
}

func addrText(addrs []netip.Addr) string {
	return strings.Trim(fmt.Sprint(addrs), "[]")
}

func TestAddrsInTurn(t *testing.T) {
	_, r := start(t, zone)
	got, err := r.Addrs(t.Context(), "a1.example.org")
	if err != nil || len(got) != 3 || !got[0].Is4() || !got[1].Is6() || !got[2].Is4() {
		t.Errorf("Addrs = %v, %v; want IPv4, IPv6, IPv4", got, err)
	}
}

func TestReverse(t *testing.T) {
	srv, r := start(t, zone)
	srv.Set("9.2.0.192.in-addr.arpa", dnstest.ServFail)
	tests := []struct{ ip, name, fcrdns string }{
		{"192.0.2.1", "a1.example.org", "pass"},
		{"::ffff:192.0.2.1", "a1.example.org", "pass"},
		{"2001:db8::1", "a1.example.org", "pass"},
		{"192.0.2.3", "a1.example.org", "fail"},
		{"192.0.2.4", "gone.example", "fail"},
		{"192.0.2.5", "<unknown>", "fail"},
		{"192.0.2.6", "six.example", "pass"},
		{"192.0.2.7", "seven.example", "pass"},
		{"192.0.2.8", "<unknown>", "fail"},
		{"192.0.2.9", "<unknown>", "error"},
		{"127.0.0.1", "localhost", "pass"},
		{"::1", "localhost", "pass"},
		{"fe80::1%lo", "<unknown>", "fail"},
	}
	for _, tt := range tests {
		name, fcrdns := r.Reverse(t.Context(), netip.MustParseAddr(tt.ip))
		if name != tt.name || fcrdns != tt.fcrdns {
			t.Errorf("Reverse(%s) = %s %s, want %s %s", tt.ip, name, fcrdns, tt.name, tt.fcrdns)
		}
	}
}

// Every fault of a server is either survived or temporary, never "does not
// exist", and heals without a restart.
func TestFaults(t *testing.T) {
	survived := map[dnstest.Fault]bool{dnstest.NoEDNS: true, dnstest.Truncate: true, dnstest.BareAlias: true}
	for fault := dnstest.ServFail; fault <= dnstest.BareAlias; fault++ {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			t.Parallel()
			srv, r := start(t, zone)
			srv.Set("alias.example", fault)
			list, err := r.MX(t.Context(), "alias.example")
			if survived[fault] && len(list) != 3 || !survived[fault] && !errors.Is(err, dns.ErrTemporary) {
				t.Errorf("MX = %v, %v", list, err)
			}
			srv.Set("alias.example", 0)
			if list, err := r.MX(t.Context(), "alias.example"); len(list) != 3 {
				t.Errorf("after healing MX = %v, %v", list, err)
			}
		})
	}
}

func TestSecondServerAnswers(t *testing.T) {
	bad, good := dnstest.Start(t, zone), dnstest.Start(t, zone)
	bad.Set("example.org", dnstest.ServFail)
	r := dns.New(dns.Config{Servers: []string{bad.Addr(), good.Addr()}})
	if list, err := r.MX(t.Context(), "example.org"); len(list) != 3 {
		t.Fatalf("MX = %v, %v", list, err)
	}
	if bad.Queries("example.org") != 1 {
		t.Errorf("the first server was asked %d times", bad.Queries("example.org"))
	}
}

func TestNoServers(t *testing.T) {
	if _, err := dns.New(dns.Config{}).MX(t.Context(), "example.org"); !errors.Is(err, dns.ErrTemporary) {
		t.Errorf("err = %v, want temporary", err)
	}
}

func TestOneFamilyFails(t *testing.T) {
	// NXDOMAIN for one type must not hide that the other could not be asked.
	srv, r := start(t, "host.example. A 192.0.2.1")
	if got, err := r.Addrs(t.Context(), "host.example"); addrText(got) != "192.0.2.1" {
		t.Fatalf("Addrs = %v, %v", got, err)
	}
	srv.Set("other.example", dnstest.Silent)
	if _, err := r.Addrs(t.Context(), "other.example"); !errors.Is(err, dns.ErrTemporary) {
		t.Errorf("err = %v, want temporary", err)
	}
}

func TestCache(t *testing.T) {
	srv, r := start(t, zone+`
stale.example. 0 MX 10 b.example.org.
example. 3600 SOA ns. host. 1 2 3 4 600
nosecond.example. 3600 SOA ns. host. 1 2 3 4 0
`)
	for range 3 {
		for _, d := range []string{"example.org", "stale.example", "gone.example", "gone.nosecond.example"} {
			_, _ = r.MX(t.Context(), d)
		}
	}
	for d, want := range map[string]int{
		"example.org": 1, "stale.example": 3, "gone.example": 1, "gone.nosecond.example": 3,
	} {
		if got := srv.Queries(d); got != want {
			t.Errorf("%s was asked %d times, want %d", d, got, want)
		}
	}
}

func TestCacheBounded(t *testing.T) {
	srv := dnstest.Start(t, "*. A 192.0.2.1\na.example. MX 1 b.\nb.example. MX 1 b.\nc.example. MX 1 b.")
	r := dns.New(dns.Config{Servers: []string{srv.Addr()}, Cache: 2})
	for _, d := range []string{"a.example", "b.example", "a.example", "c.example", "a.example", "b.example"} {
		if _, err := r.MX(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := srv.Queries("a.example"), srv.Queries("b.example"); a != 1 || b != 2 {
		t.Errorf("a asked %d times, b %d; want the least recently used one to be forgotten", a, b)
	}
}

func TestSameQuestionAskedOnce(t *testing.T) {
	srv, r := start(t, zone)
	srv.Set("example.org", dnstest.Silent)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { _, _ = r.MX(t.Context(), "example.org") })
	}
	wg.Wait()
	if n := srv.Queries("example.org"); n > 10 {
		t.Errorf("50 callers asked %d times", n)
	}
}

func TestCallerLeavesOthersStay(t *testing.T) {
	srv, r := start(t, zone)
	srv.Set("example.org", dnstest.Silent)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := r.MX(ctx, "example.org")
		gone <- err
	}()
	for srv.Queries("example.org") == 0 {
		time.Sleep(time.Millisecond)
	}
	srv.Set("example.org", 0)
	cancel()
	if err := <-gone; !errors.Is(err, dns.ErrTemporary) {
		t.Errorf("cancelled: %v", err)
	}
	if list, err := r.MX(t.Context(), "example.org"); len(list) != 3 {
		t.Errorf("MX = %v, %v", list, err)
	}
}

func TestTrace(t *testing.T) {
	_, r := start(t, zone+"short.example. 60 MX 10 b.example.org.")
	var told dns.Trace
	ctx := dns.WithTrace(t.Context(), &told)
	for range 2 {
		_, _ = r.MX(ctx, "short.example")
	}
	_, _ = r.MX(ctx, "gone.example")
	_, _ = r.MX(ctx, "localhost")
	_, _ = r.Addrs(ctx, "b.example.org")
	var lines []string
	for _, a := range told.Asked() {
		lines = append(lines, fmt.Sprintf("%s %v %s %v %s", a.Question, a.Answers, a.TTL, a.Hosts, a.Fault))
	}
	slices.Sort(lines)
	want := []string{
		"A of b.example.org [192.0.2.3] 1h0m0s false ", "AAAA of b.example.org [] 30s false AAAA of b.example.org: no such record",
		"MX of gone.example [] 30s false MX of gone.example: domain does not exist", "MX of localhost [0 localhost.] 0s true ",
		"MX of short.example [10 b.example.org.] 1m0s false ",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("traced\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	var again dns.Trace
	_, _ = r.MX(dns.WithTrace(t.Context(), &again), "short.example")
	if a := again.Asked(); len(a) != 1 || !a[0].Cached || a[0].TTL <= 0 || a[0].TTL > time.Minute {
		t.Errorf("from the cache: %+v", a)
	}
}

func BenchmarkCachedMX(b *testing.B) {
	srv := dnstest.Start(b, zone)
	r := dns.New(dns.Config{Servers: []string{srv.Addr()}})
	for b.Loop() {
		if _, err := r.MX(b.Context(), "example.org"); err != nil {
			b.Fatal(err)
		}
	}
}

// Only what a resolver on this host vouches for, in every answer on the way, is
// proven.
func TestProvenMX(t *testing.T) {
	s, r := start(t, zone)
	s.Set("example.org", dnstest.Proven)
	s.Set("alias.example", dnstest.Proven)
	s.Set("partly.example", dnstest.BareAlias)
	for domain, want := range map[string]bool{"example.org": true, "alias.example": true, "partly.example": false, "implicit.example": false} {
		list, err := r.MX(t.Context(), domain)
		if err != nil || list[0].Proven != want {
			t.Errorf("%s: %+v, %v", domain, list, err)
		}
	}
}
