package mta

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

// Each limit on connections holds, over all destinations that it is about, and
// sessions that wait for mail make room for those who wait for a place.
func TestConnectionLimits(t *testing.T) {
	for name, limit := range map[string]func(*Limits){
		"host":   func(l *Limits) { l.PerHost = 2 },
		"route":  func(l *Limits) { l.PerRoute = 2 },
		"source": func(l *Limits) { l.PerSource = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) { limit(&c.Limits) })
			var zone strings.Builder
			for i := range 6 {
				fmt.Fprintf(&zone, "d%d.example. MX 10 shared%d.example.\nshared%d.example. A 192.0.2.3\n", i, i, i)
			}
			w.dns.Zone(t, zone.String())
			p := newPeer(t)
			w.at("192.0.2.3:25", p.start()).start()
			var jobs []queue.Job
			for i := range 12 {
				jobs = append(jobs, w.flood(1, fmt.Sprintf("x@d%d.example", i%6))...)
			}
			for _, j := range jobs {
				wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Delivered, 250)
			}
			if w.most > 2 {
				t.Errorf("%d connections at once", w.most)
			}
		})
	}
}

// What one destination may have at once holds for it alone, and so does a limit
// that is set for its domain or relay host.
func TestLimitsOfDestination(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"connector": func(c *Config) { c.Limits.PerConnector = 2 },
		"domain":    func(c *Config) { c.Limits.PerDomain = 2 },
		"relay":     func(c *Config) { c.Limits.PerDestination = 2 },
		"for domain": func(c *Config) {
			c.ForDomain = map[string]Limits{"example.org": {PerDestination: 2}}
		},
		"for relay host": func(c *Config) { c.ForDomain = map[string]Limits{"192.0.2.3": {PerDestination: 2}} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := relayWorld(t, limit)
			g := newGate()
			p.on(".", g.hold)
			w.start()
			jobs := w.flood(6, "x@example.org")
			for range 2 {
				<-g.in
			}
			select {
			case <-g.in:
				t.Error("more than two at once")
			case <-time.After(20 * time.Millisecond):
			}
			close(g.open)
			for _, j := range jobs {
				wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Delivered, 250)
			}
			if p.connections() != 2 {
				t.Errorf("%d connections", p.connections())
			}
		})
	}
}

// A limit of our own is no attempt at the mail.
func TestCrowdedIsNoAttempt(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PerHost, c.Timeouts.Connect = 1, 30*time.Millisecond })
	w.dns.Zone(t, testZone+"second.example. A 192.0.2.3\n")
	p := newPeer(t)
	g := newGate()
	p.on(".", g.hold)
	w.at("192.0.2.3:25", p.start()).start()
	first := w.flood(1, "x@other.example")[0]
	<-g.in
	if r := w.one("x@second.example"); r.Outcome != queue.Returned || !strings.Contains(r.Text, "too many connections") {
		t.Errorf("result %+v", r)
	}
	close(g.open)
	wantResult(t, w.queue.await(t, first.Envelopes[0].ID), queue.Delivered, 250)
	wantResult(t, w.one("x@second.example"), queue.Delivered, 250)
}

// Delays between connections and between messages are kept.
func TestDelays(t *testing.T) {
	const gap = 60 * time.Millisecond
	for name, limit := range map[string]func(*Limits){
		"host": func(l *Limits) { l.DelayHost = gap }, "route": func(l *Limits) { l.DelayRoute = gap },
		"source": func(l *Limits) { l.DelaySource = gap }, "connector": func(l *Limits) { l.DelayConnector = gap },
		"relay": func(l *Limits) { l.DelayRelay = gap }, "domain": func(l *Limits) { l.DelayDomain = gap },
		"reconnect":               func(l *Limits) { l.Reconnect = gap },
		"reconnect under a limit": func(l *Limits) { l.Reconnect, l.PerRoute = gap, 5 },
		"transaction": func(l *Limits) {
			l.Transaction, l.Messages = gap, 100
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := relayWorld(t, func(c *Config) {
				c.Limits.Messages = 1
				limit(&c.Limits)
			})
			w.start()
			wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
			begin := time.Now()
			wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
			if took := time.Since(begin); took < gap/3 {
				t.Errorf("the next after %s", took)
			}
		})
	}
}

// A session in which too much was refused is ended.
func TestFailuresPerSession(t *testing.T) {
	w, p := relayWorld(t, func(c *Config) { c.Limits.Failures = 2 })
	p.on("RCPT", say("550 5.1.1 unknown"))
	w.start()
	for range 5 {
		wantResult(t, w.one("x@example.org"), queue.Failed, 550)
	}
	if p.connections() != 3 {
		t.Errorf("%d connections", p.connections())
	}
}

// Domains that share a relay host have each its own limits, whichever came first,
// and share them where they have none of their own.
func TestLimitsOfDomainsOverOneRelay(t *testing.T) {
	m := New(Config{
		Hostname: "us", Limits: Limits{Messages: 50},
		ForDomain: map[string]Limits{"own.example": {PerDestination: 2, Messages: 7}, "other.example": {PerDestination: 3}},
	}, nil, nil)
	route := lookup.Route{Hosts: []lookup.RelayURL{{Host: "smart.example", Port: "25"}}}
	most := make(map[string]int)
	lanes := make(map[*lane]bool)
	for range 2 {
		for _, domain := range []string{"own.example", "a.example", "other.example", "b.example"} {
			l, fail := m.lane(t.Context(), m.destinationOf("out", domain, route))
			if fail != nil {
				t.Fatal(fail.text)
			}
			most[domain], lanes[l] = l.most, true
		}
	}
	if want := map[string]int{"own.example": 2, "a.example": 20, "other.example": 3, "b.example": 20}; !maps.Equal(most, want) || len(lanes) != 3 {
		t.Errorf("%v in %d lanes, want %v", most, len(lanes), want)
	}
}

func TestFamilyLimit(t *testing.T) {
	addrs := []string{"192.0.2.1", "2001:db8::1", "/run/lmtp"}
	for f, want := range map[Family][]string{
		AnyFamily: addrs, IPv4: {"192.0.2.1", "/run/lmtp"}, IPv6: {"2001:db8::1", "/run/lmtp"},
	} {
		if got := f.only(slices.Clone(addrs)); !slices.Equal(got, want) {
			t.Errorf("family %d: %v", f, got)
		}
	}
	w := newWorld(t, func(c *Config) { c.ForDomain = map[string]Limits{"example.org": {Family: IPv6}} })
	w.start()
	wantResult(t, w.one("x@example.org"), queue.Deferred, 0, "address family mismatch")
	m := New(Config{Hostname: "us", ForDomain: map[string]Limits{"smart.example": {Messages: 7}}}, nil, nil)
	d := m.destinationOf("out", "d.example", lookup.Route{Hosts: []lookup.RelayURL{{Host: "Smart.example", Port: "25"}}})
	if d.limits.Messages != 7 || d.limits.PerHost != 100 || d.own != "smart.example" {
		t.Errorf("limits %+v for %q", d.limits, d.own)
	}
}

// The rest after a connection is kept to the letter, whatever other limit its
// route is under.
func TestRest(t *testing.T) {
	for name, l := range map[string]Limits{
		"alone": {}, "with a limit": {PerRoute: 5}, "with a limit of one": {PerRoute: 1}, "with a short delay": {PerRoute: 5, DelayRoute: time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			l.Reconnect = 300 * time.Millisecond
			m := New(Config{Hostname: "us", Limits: l}, nil, nil)
			d := m.destinationOf("out", "d.example", lookup.Route{})
			began := time.Now()
			first, ref := m.place(t.Context(), d, "192.0.2.1")
			if ref != nil {
				t.Fatal(ref)
			}
			<-time.After(time.Second)
			first.end()
			if _, ref := m.place(t.Context(), d, "192.0.2.1"); ref != nil || time.Since(began).Round(time.Millisecond) != 1300*time.Millisecond {
				t.Errorf("%s: the next after %v: %v", name, time.Since(began), ref)
			}
		})
	}
}

// Whoever needs the place of a session that has nothing to do is not kept by a
// server that does not answer QUIT; a third one's place may come before.
func TestEvictedWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &villain{t: t, step: "QUIT", do: raw("", true)}
		w := hostileWorld(t, func(context.Context, string, string, string) (net.Conn, error) { return v.accept(), nil })
		w.mta.cfg.Limits.PerSource = 1
		t.Cleanup(v.wg.Wait)
		w.start()
		for _, to := range []string{"x@a.example", "x@b.example"} {
			began := time.Now()
			wantResult(t, w.one(to), queue.Delivered, 250)
			if took := time.Since(began); took > evictPatience {
				t.Errorf("%s took %v", to, took)
			}
		}
		<-time.After(time.Hour)
	})
}
