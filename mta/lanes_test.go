package mta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tabard/queue"
)

// Destinations whose mail goes to the same servers share what these bear.
func TestSameServersShareLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PerDestination = 3 })
	w.dns.Zone(t, testZone+"d1.example. MX 10 mx1.example.org.\nd1.example. MX 20 mx2.example.org.\n"+
		"d2.example. MX 5 MX2.example.org.\nd2.example. MX 5 mx1.example.org.")
	p := newPeer(t)
	g := newGate()
	p.on(".", g.hold)
	addr := p.start()
	w.at("192.0.2.1:25", addr).at("192.0.2.2:25", addr).start()
	jobs := append(w.flood(3, "x@d1.example"), w.flood(3, "x@d2.example")...)
	for range 3 {
		<-g.in
	}
	select {
	case <-g.in:
		t.Error("more than three messages at once")
	case <-time.After(30 * time.Millisecond):
	}
	close(g.open)
	for _, j := range jobs {
		wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Delivered, 250)
	}
	if n := len(w.mta.lanes.byKey); n != 1 {
		t.Errorf("%d lanes", n)
	}
}

// What servers say of themselves moves the limit; what they say of a mailbox
// does not.
func TestLimitAdapts(t *testing.T) {
	for _, tt := range []struct {
		name, step string
		do         action
		want       int // the limit after a first message that was delivered
	}{
		{"delivered", "", say("220 hello"), laneFirst + 2},
		{"refused", "RCPT", say("550 5.1.1 unknown"), laneFirst + 2},
		{"mailbox full", "RCPT", say("452 4.2.2 full"), laneFirst + 1},
		{"busy", "MAIL", say("451 4.3.2 overloaded"), 1},
		{"no code", ".", say("451 try later"), 1},
		{"rate", "RCPT", say("450 4.7.1 too fast"), 1},
		{"421", "DATA", say("421 4.3.2 going down"), 1},
		{"cut", ".", cut, 1},
		{"silence", "RCPT", func(c *peerConn, _ string) (string, bool) { hang(c); return "", false }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, p := relayWorld(t, impatient)
			r := w.start().one("x@example.org")
			if limit := laneFirst + 1; r.Window != limit+limit/4 {
				t.Errorf("window %d after a first message", r.Window)
			}
			p.on(tt.step, tt.do)
			r = w.one("x@example.org")
			if r.Window != tt.want+tt.want/4 {
				t.Errorf("window %d, want that of limit %d: %s", r.Window, tt.want, stat(r))
			}
		})
	}
}

// What a destination demands in vain says nothing about others at the same place.
func TestLaneOfDemands(t *testing.T) {
	for f, want := range map[fault]mood{
		faultConnect: down, faultGreeting: down, faultHello: down,
		faultNoTLS: unheard, faultPeer: unheard, faultAuth: unheard,
	} {
		if got := (&refusal{fault: f, err: errClosed}).failure().mood; got != want {
			t.Errorf("fault %d tells %d, want %d", f, got, want)
		}
	}
	silent := (&refusal{fault: faultConnect, err: errClosed, silent: true}).failure()
	if silent.mood != unheard {
		t.Error("what was not tried tells of the server")
	}
	if tried := (&refusal{fault: faultConnect, err: errClosed}).failure(); silent.or(tried).mood != down || tried.or(silent).mood != down {
		t.Error("of two servers, the one that was tried does not count")
	}
}

func TestLaneLimit(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newLanes()
	s.now = func() time.Time { return now }
	l := s.learn("d", "servers", "", laneSize{most: 20, waiting: 10})
	pass := func(n int, m mood) {
		var all []*ticket
		for range n {
			tk, err := s.enter(t.Context(), l, "d")
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, tk)
		}
		now = now.Add(time.Second)
		for _, tk := range all {
			s.leave(tk, m)
		}
	}
	for _, step := range []struct {
		n    int
		mood mood
		want float64
	}{
		{5, fine, 10}, {10, fine, 20}, {20, fine, 20}, {3, unheard, 20},
		{20, trouble, 10}, {8, trouble, 4}, // each time once
		{4, fine, 4.9}, {1, trouble, 1}, {1, trouble, 1}, {1, fine, 2}, {1, down, 1},
	} {
		pass(step.n, step.mood)
		if l.limit < step.want-0.1 || l.limit > step.want+0.1 {
			t.Errorf("after %d times %d the limit is %.2f, want %.2f", step.n, step.mood, l.limit, step.want)
		}
	}
	if l.used != 0 || len(l.jobs) != 0 {
		t.Errorf("left: %d, %v", l.used, l.jobs)
	}
}

func TestLaneLine(t *testing.T) {
	s := newLanes()
	l := s.learn("d", "servers", "", laneSize{most: 1, waiting: 1})
	first, err := s.enter(t.Context(), l, "d")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	wait := func(ctx context.Context) {
		go func() {
			tk, err := s.enter(ctx, l, "e")
			if err == nil {
				s.leave(tk, fine)
			}
			got <- err
		}()
		for standing := 0; standing == 0; {
			s.mu.Lock()
			standing = len(l.line)
			s.mu.Unlock()
		}
	}
	wait(ctx)
	if _, err := s.enter(t.Context(), l, "d"); !errors.Is(err, errBusy) {
		t.Errorf("second in line: %v", err)
	}
	if n := s.window(l, "d"); n != 1 {
		t.Errorf("window %d", n)
	}
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	wait(t.Context())
	s.leave(first, fine)
	if err := <-got; err != nil {
		t.Errorf("next in line: %v", err)
	}
	if l.used != 0 || len(l.jobs) != 0 || len(l.line) != 0 {
		t.Errorf("left: %+v", l)
	}
}

func TestLanesBounded(t *testing.T) {
	now := time.Unix(1000000, 0)
	s := newLanes()
	s.now = func() time.Time { return now }
	for i := range laneEntries + 100 {
		s.learn(fmt.Sprint(i), fmt.Sprint(i), "", laneSize{most: 20, waiting: 10})
	}
	if len(s.byKey) > laneEntries || len(s.known) > laneEntries {
		t.Errorf("%d lanes, %d destinations", len(s.byKey), len(s.known))
	}
	now = now.Add(time.Hour)
	s.learn("new", "new", "", laneSize{most: 20, waiting: 10})
	if len(s.byKey) != 1 || len(s.known) != 1 {
		t.Errorf("%d lanes, %d destinations after all were forgotten", len(s.byKey), len(s.known))
	}
}

// However many servers a destination has, its lane is its own and takes no more
// room than others.
func TestLaneOfManyServers(t *testing.T) {
	s := newLanes()
	many := strings.Repeat("mx.long.example:25 ", 1000)
	a, b := s.learn("a", many+"a", "", laneSize{most: 20, waiting: 10}), s.learn("b", many+"b", "", laneSize{most: 20, waiting: 10})
	if a == b || s.learn("c", many+"a", "", laneSize{most: 20, waiting: 10}) != a {
		t.Error("lanes are told apart by all their servers")
	}
	for key, l := range s.byKey {
		if len(key) > maxServers || len(l.servers) > maxServers+3 {
			t.Errorf("%d and %d bytes", len(key), len(l.servers))
		}
	}
}

// A line that was full takes none until it is down to its mark, and then so many.
func TestCrowd(t *testing.T) {
	for _, tt := range []struct {
		name string
		size laneSize
		line string // how many stand there when one comes, and whether he is taken
	}{
		{"by itself", laneSize{waiting: 3, resume: 2}, "0+ 2+ 3- 2+ 3- 2+ 0+"},
		{"with a mark", laneSize{waiting: 5, resume: 2}, "0+ 4+ 5- 4- 3- 2+ 3+ 4+ 5- 3- 0+ 4+"},
		{"in gulps", laneSize{waiting: 5, resume: 2, release: 2}, "4+ 5- 3- 2+ 3+ 4- 3- 2+ 3+ 4- 5- 3- 0+ 1+ 2+ 3+ 4-"},
		{"mark above", laneSize{waiting: 2, resume: 9}, "1+ 2- 1+"},
		{"nobody may wait", laneSize{waiting: 0, resume: 0}, "0- 0-"},
	} {
		var c crowd
		for i, step := range strings.Fields(tt.line) {
			if got, want := c.takes(int(step[0]-'0'), tt.size), step[1] == '+'; got != want {
				t.Errorf("%s: step %d, with %c waiting: %t", tt.name, i, step[0], got)
			}
		}
	}
}
