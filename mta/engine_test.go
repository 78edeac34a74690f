package mta

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

func TestSessionReused(t *testing.T) {
	w, p := relayWorld(t, func(c *Config) { c.Limits.Messages = 3 })
	goodbyes := make(chan struct{}, 7)
	p.on("QUIT", func(*peerConn, string) (string, bool) {
		goodbyes <- struct{}{}
		return "221 bye", false
	})
	w.start()
	for range 7 {
		wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	}
	for range 2 { // said after the results were told
		<-goodbyes
	}
	var conns []int
	for _, m := range p.got() {
		conns = append(conns, m.conn)
	}
	if fmt.Sprint(conns) != "[1 1 1 2 2 2 3]" {
		t.Errorf("messages came over connections %v", conns)
	}
	if strings.Count(p.said(), "EHLO") != 3 || strings.Count(p.said(), "QUIT") != 2 {
		t.Errorf("dialogue:\n%s", p.said())
	}
}

// Whatever differs in a route keeps sessions apart.
func TestSessionsNotShared(t *testing.T) {
	m := New(Config{Hostname: "us.example.net"}, nil, nil)
	base := lookup.Route{Hosts: []lookup.RelayURL{{Scheme: "tls", Label: "a", Host: "h", Port: "25"}}}
	same := m.destinationOf("out", "one.example", base)
	if other := m.destinationOf("out", "two.example", base); other.key != same.key {
		t.Error("two domains with the same relay host do not share sessions")
	}
	keys := map[string]string{same.key: "base"}
	different := map[string]func(*lookup.Route){
		"scheme": func(r *lookup.Route) { r.Hosts[0].Scheme = "smtp+tls" },
		"label":  func(r *lookup.Route) { r.Hosts[0].Label = "b" },
		"host":   func(r *lookup.Route) { r.Hosts[0].Host = "i" },
		"port":   func(r *lookup.Route) { r.Hosts[0].Port = "26" },
		"more":   func(r *lookup.Route) { r.Hosts = append(r.Hosts, r.Hosts[0]) },
		"helo":   func(r *lookup.Route) { r.Helo = "x" }, "source": func(r *lookup.Route) { r.Source = "192.0.2.1" },
		"tls": func(r *lookup.Route) { r.TLS = true }, "no-verify": func(r *lookup.Route) { r.NoVerify = true },
		"present": func(r *lookup.Route) { r.Present = true }, "backup": func(r *lookup.Route) { r.BackupMX = "x" },
		"mx": func(r *lookup.Route) { r.Hosts = nil },
	}
	for name, change := range different {
		r := base
		r.Hosts = append([]lookup.RelayURL(nil), base.Hosts...)
		change(&r)
		k := m.destinationOf("out", "one.example", r).key
		if keys[k] != "" {
			t.Errorf("%s shares sessions with %s", name, keys[k])
		}
		keys[k] = name
	}
	if keys[m.destinationOf("other", "one.example", base).key] != "" {
		t.Error("two actions share sessions")
	}
	mx := lookup.Route{}
	if m.destinationOf("out", "one.example", mx).key == m.destinationOf("out", "two.example", mx).key {
		t.Error("two domains by MX share sessions")
	}
}

// A kept session that ended meanwhile costs nothing but another connection.
func TestStaleSession(t *testing.T) {
	for name, a := range map[string]action{"cut": cut, "421": say("421 4.4.2 idle")} {
		t.Run(name, func(t *testing.T) {
			w, p := relayWorld(t)
			w.start()
			wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
			var once sync.Once
			p.on("MAIL", func(c *peerConn, line string) (answer string, goOn bool) {
				answer, goOn = "250 ok", true
				once.Do(func() { answer, goOn = a(c, line) })
				return answer, goOn
			})
			wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
			if len(p.got()) != 2 || p.connections() != 2 {
				t.Errorf("%d messages over %d connections", len(p.got()), p.connections())
			}
		})
	}
}

// A server that says more than it is asked must not have it taken for the
// answer to the next question: here it would turn a refusal into a delivery.
func TestUnsolicitedReply(t *testing.T) {
	w, p := relayWorld(t)
	p.on("MAIL", say("250 ok\r\n250 ok\r\n354 ok\r\n250 2.0.0 delivered"))
	p.on("RCPT", say("550 5.1.1 unknown"))
	wantResult(t, w.start().one("x@example.org"), queue.Deferred, 0, "without being asked")
}

// The answers after the greeting of a server that speaks too early either.
func TestUnsolicitedEarly(t *testing.T) {
	w, p := relayWorld(t)
	p.on("", say("220 hello\r\n250 yes"))
	wantResult(t, w.start().one("x@example.org"), queue.Deferred, 0, "without being asked")
	if p.said() != "" {
		t.Errorf("the dialogue went on:\n%s", p.said())
	}
}

func TestIdleSessionEnds(t *testing.T) {
	w, p := relayWorld(t, func(c *Config) { c.Timeouts.Idle = 10 * time.Millisecond })
	quit := make(chan struct{})
	p.on("QUIT", func(*peerConn, string) (string, bool) { close(quit); return "221 bye", false })
	wantResult(t, w.start().one("x@example.org"), queue.Delivered, 250)
	<-quit
}

// gate is a hook that holds everybody until it is opened.
type gate struct {
	in   chan struct{}
	open chan struct{}
}

func newGate() *gate { return &gate{in: make(chan struct{}, 1000), open: make(chan struct{})} }

func (g *gate) hold(*peerConn, string) (string, bool) {
	g.in <- struct{}{}
	<-g.open
	return "250 2.0.0 held", true
}

func (w *world) flood(n int, to string) []queue.Job {
	jobs := make([]queue.Job, n)
	for i := range jobs {
		jobs[i] = job(w.queue.nextID(), to)
	}
	w.queue.push(jobs...)
	return jobs
}

// A destination that is slow has its share of connections and no more, and
// another one does not notice.
func TestSlowDestination(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Limits.InFlight, c.Limits.PerDestination, c.Limits.Waiting = 60, 3, 20
	})
	slow, quick := newPeer(t), newPeer(t)
	g := newGate()
	slow.on(".", g.hold)
	w.at("192.0.2.1:25", slow.start()).at("192.0.2.3:25", quick.start()).start()
	jobs := w.flood(23, "x@example.org")
	for range 3 {
		<-g.in
	}
	for range 20 {
		wantResult(t, w.one("x@other.example"), queue.Delivered, 250)
	}
	close(g.open)
	for _, j := range jobs {
		wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Delivered, 250)
	}
	if n := slow.connections(); n != 3 {
		t.Errorf("%d connections to the slow one", n)
	}
}

// A destination that does not answer at all holds up its own mail only, and
// that no longer than one attempt takes.
func TestHangingDestination(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PerDestination, c.Timeouts.Connect = 3, 300*time.Millisecond })
	p := newPeer(t)
	w.at("192.0.2.1:25", "hang").at("192.0.2.2:25", "hang").at("192.0.2.3:25", p.start()).start()
	jobs := w.flood(200, "x@example.org")
	for range 20 {
		wantResult(t, w.one("x@other.example"), queue.Delivered, 250)
	}
	for _, j := range jobs {
		wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Deferred, 0, "timeout")
	}
	if n := w.dialled("192.0.2.1:25") + w.dialled("192.0.2.2:25"); n > 6 {
		t.Errorf("dialled %d times", n)
	}
}

// When too many wait for one destination, the rest goes back untried.
func TestTooManyWaiting(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Limits.InFlight, c.Limits.PerDestination, c.Limits.Waiting = 10, 1, 2
	})
	p := newPeer(t)
	g := newGate()
	p.on(".", g.hold)
	w.at("192.0.2.1:25", p.start()).start()
	jobs := w.flood(6, "x@example.org")
	<-g.in
	returned := make(chan queue.Result, len(jobs))
	for _, j := range jobs {
		go func() { returned <- w.queue.await(t, j.Envelopes[0].ID) }()
	}
	for range 3 {
		if r := <-returned; r.Outcome != queue.Returned || r.NotBefore.IsZero() {
			t.Errorf("result %+v", r)
		}
	}
	close(g.open)
	for range 3 {
		wantResult(t, <-returned, queue.Delivered, 250)
	}
}

func TestInFlightBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.InFlight, c.Limits.Waiting = 5, 5 })
	p := newPeer(t)
	w.at("192.0.2.1:25", p.start()).start()
	for _, j := range w.flood(50, "x@example.org") {
		wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Delivered, 250)
	}
	if w.queue.most > 5 {
		t.Errorf("%d jobs out at once", w.queue.most)
	}
}

// sixDomains delivers to as many domains that have one server.
func sixDomains(t *testing.T, w *world) *peer {
	t.Helper()
	var zone strings.Builder
	for i := range 6 {
		fmt.Fprintf(&zone, "d%d.example. MX 10 shared%d.example.\nshared%d.example. A 192.0.2.3\n", i, i, i)
	}
	w.dns.Zone(t, zone.String())
	p := newPeer(t)
	w.at("192.0.2.3:25", p.start()).start()
	for i := range 6 {
		wantResult(t, w.one(fmt.Sprintf("x@d%d.example", i)), queue.Delivered, 250)
	}
	return p
}

// Connections to one address are bounded over all destinations, and idle ones
// make room.
func TestPerHost(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PerHost = 2 })
	p := sixDomains(t, w)
	if p.connections() != 6 || w.most != 2 {
		t.Errorf("%d connections, %d at once", p.connections(), w.most)
	}
}

// A server that does not answer QUIT delays no result.
func TestResultBeforeGoodbye(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Messages, c.Timeouts.Quit = 1, time.Minute })
	asked, answer := make(chan struct{}), make(chan struct{})
	p := newPeer(t).on("QUIT", func(*peerConn, string) (string, bool) {
		close(asked)
		<-answer
		return "221 bye", true
	})
	w.at("192.0.2.3:25", p.start()).relay(plainRelay).start()
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	<-asked
	close(answer)
}

// Sessions that nobody has use for are kept in bounds: the oldest goes first.
func TestIdleBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.InFlight = 3 })
	p := sixDomains(t, w)
	idle := w.mta.idle
	idle.mu.Lock()
	n, last := idle.order.Len(), idle.order.Back().Value.(*session).dest.domain
	kept := len(idle.byKey)
	idle.mu.Unlock()
	if n > 3 || kept != n || last != "d5.example" {
		t.Errorf("%d sessions of %d destinations are kept, the last for %s", n, kept, last)
	}
	// What is kept is of use.
	wantResult(t, w.one("x@d4.example"), queue.Delivered, 250)
	if p.connections() != 6 {
		t.Errorf("%d connections", p.connections())
	}
}

// A dead host is not run against by the backlog, and mail says when it may be
// tried again.
func TestDeadHostRemembered(t *testing.T) {
	w := newWorld(t)
	w.relay(plainRelay).start()
	first := w.one("x@example.org")
	wantResult(t, first, queue.Deferred, 0, "4.4.1", "refused")
	if wait := time.Until(first.NotBefore); wait <= 0 || wait > penaltyUnit {
		t.Errorf("not before %s from now", wait)
	}
	for range 10 {
		again := w.one("y@example.org")
		wantResult(t, again, queue.Deferred, 0, "not tried again yet", "refused")
		if !again.NotBefore.Equal(first.NotBefore) {
			t.Errorf("not before %s, want %s", again.NotBefore, first.NotBefore)
		}
	}
	if n := w.dialled("192.0.2.3:25"); n != 1 {
		t.Errorf("dialled %d times", n)
	}
	// Who asks for it by hand has it tried before; that does not put off the next attempt.
	j := job(7, "z@example.org")
	j.Urged = true
	wantResult(t, w.deliver(j)[0], queue.Deferred, 0, "4.4.1", "connect", "refused")
	if n := w.dialled("192.0.2.3:25"); n != 2 {
		t.Errorf("asked for by hand: dialled %d times", n)
	}
	if again := w.one("y@example.org"); !again.NotBefore.Equal(first.NotBefore) {
		t.Errorf("asked for by hand: not before %s, want %s", again.NotBefore, first.NotBefore)
	}
	// When the time is over the host is tried, and forgiven.
	p := newPeer(t)
	w.at("192.0.2.3:25", p.start())
	w.mta.penalties.now = func() time.Time { return time.Now().Add(penaltyUnit) }
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	if len(w.mta.penalties.at) != 0 {
		t.Errorf("still remembered: %v", w.mta.penalties.at)
	}
}

// What is remembered and logged of a server that talks at length is short.
func TestLongRefusalIsShortened(t *testing.T) {
	for _, at := range []string{"", "EHLO"} {
		w := newWorld(t)
		p := newPeer(t).on(at, say(strings.Repeat("454-"+strings.Repeat("no ", 300)+"\r\n", 60)+"454 no"))
		w.at("192.0.2.3:25", p.start()).relay(plainRelay).start()
		if r := w.one("x@example.org"); r.Outcome != queue.Deferred || len(r.Text) < 50_000 {
			t.Errorf("result %d of %d bytes", r.Outcome, len(r.Text))
		}
		w.mta.penalties.mu.Lock()
		for place, e := range w.mta.penalties.at {
			if len(e.why) > maxStat {
				t.Errorf("%s: %d bytes are kept", place, len(e.why))
			}
		}
		w.mta.penalties.mu.Unlock()
		for line := range strings.Lines(w.log.String()) {
			if len(line) > 3*maxStat {
				t.Errorf("a line of %d bytes in the log", len(line))
			}
		}
	}
}

// What one destination demands and does not get is no reason to keep others
// from the same host.
func TestPenaltyOfDestination(t *testing.T) {
	w, p := newWorld(t), newPeer(t)
	w.at("192.0.2.3:25", p.start())
	w.lookup.byDomain["strict.example"] = lookup.Route{Hosts: []lookup.RelayURL{{Scheme: "tls", Host: "192.0.2.3", Port: "25"}}}
	w.relay(plainRelay).start()
	for range 3 {
		wantResult(t, w.one("x@strict.example"), queue.Deferred, 0, "STARTTLS")
	}
	if p.connections() != 1 {
		t.Errorf("%d connections", p.connections())
	}
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	// It is forgiven when it does better.
	ca := newAuthority(t)
	w.lookup.roots.AddCert(ca.cert)
	p.tls = serverTLS(ca.good(t, "192.0.2.3"))
	w.mta.penalties.now = func() time.Time { return time.Now().Add(penaltyUnit) }
	wantResult(t, w.one("x@strict.example"), queue.Delivered, 250)
	if len(w.mta.penalties.at) != 0 {
		t.Errorf("still remembered: %v", w.mta.penalties.at)
	}
}

// Told to stop, the MTA finishes what runs and hands back what waits.
func TestStop(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PerDestination = 1 })
	p := newPeer(t)
	g := newGate()
	p.on(".", g.hold)
	w.at("192.0.2.1:25", p.start()).start()
	jobs := w.flood(5, "x@example.org")
	<-g.in
	w.stop()
	outcomes := make(map[queue.Outcome]int)
	results := make(chan queue.Result, len(jobs))
	for _, j := range jobs {
		go func() { results <- w.queue.await(t, j.Envelopes[0].ID) }()
	}
	for range 4 {
		outcomes[(<-results).Outcome]++
	}
	close(g.open)
	outcomes[(<-results).Outcome]++
	if outcomes[queue.Delivered] != 1 || outcomes[queue.Returned] != 4 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// A transaction that does not end in time is cut off, and does not count.
func TestStopCutsOff(t *testing.T) {
	w, p := relayWorld(t, func(c *Config) { c.StopTimeout = 50 * time.Millisecond })
	reached := make(chan struct{})
	p.on(".", func(c *peerConn, _ string) (string, bool) {
		close(reached)
		_, _ = io.Copy(io.Discard, c.in)
		return "", false
	})
	w.start()
	j := w.flood(1, "x@example.org")[0]
	<-reached
	w.stop()
	wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Returned, 0)
}

func TestLogLines(t *testing.T) {
	ca := newAuthority(t)
	w, p := newWorld(t), newPeer(t)
	p.tls = serverTLS(ca.good(t, "mx1.example.org"))
	p.tls.MaxVersion = 0x0304
	w.lookup.roots.AddCert(ca.cert)
	w.at("192.0.2.1:25", p.start()).start()
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	w.stop()
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
	w.done <- nil
	for _, want := range []string{
		`msg="mta connecting" session=`, ` address=smtp+tls://192.0.2.1:25 host=mx1.example.org`, `msg="mta connected" session=`,
		`msg="mta tls" session=`, ` ciphers=TLSv1.3:TLS_AES_128_GCM_SHA256:128`, `result=verified fingerprint=SHA256:`,
		`evpid=0000000000000001.0 from=<` + testFrom + `> to=<x@example.org> rcpt=<-> source=127.0.0.1 ` +
			`relay="192.0.2.1 (mx1.example.org)" delay=0s result=Ok stat="250 2.0.0 taken"`,
		`msg="mta disconnected" session=`, ` reason=quit messages=1`,
	} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("no %q in\n%s", want, w.log)
		}
	}
}

func TestRunNeedsConfig(t *testing.T) {
	if err := New(Config{}, newMemLookup(), newMemQueue()).Run(t.Context()); err == nil {
		t.Error("ran without a resolver")
	}
}
