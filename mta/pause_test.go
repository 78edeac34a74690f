package mta

import (
	"strings"
	"testing"

	"tabard/queue"
)

func pausedJob(w *world, to string, holds ...queue.Hold) queue.Job {
	j := job(w.queue.nextID(), to)
	j.Paused = holds
	return j
}

// A paused server gets nothing, not over a session that is open either; when
// there are others for the mail they are used, else it goes back untried.
func TestPausedServer(t *testing.T) {
	w := newWorld(t)
	first, second := newPeer(t), newPeer(t)
	w.at("192.0.2.1:25", first.start()).at("192.0.2.2:25", second.start()).start()
	wantResult(t, w.deliver(pausedJob(w, "x@example.org"))[0], queue.Delivered, 250)
	one := queue.Hold{ID: 7, Kind: queue.HoldRoute, Value: "mx1.example.org", Reason: "they asked"}
	two := queue.Hold{ID: 8, Kind: queue.HoldRoute, Value: "mx2.example.org:25"}
	wantResult(t, w.deliver(pausedJob(w, "x@example.org", one))[0], queue.Delivered, 250)
	if a, b := len(first.got()), len(second.got()); a != 1 || b != 1 {
		t.Errorf("%d messages over the paused server, %d over the other", a, b)
	}
	r := w.deliver(pausedJob(w, "x@example.org", one, two))[0]
	if r.Outcome != queue.Paused || r.Hold != 7 && r.Hold != 8 || !strings.Contains(r.Text, "paused") {
		t.Errorf("result %+v", r)
	}
	if r.Servers != "mx1.example.org:25 mx2.example.org:25" {
		t.Errorf("servers %q", r.Servers)
	}
	wantResult(t, w.deliver(pausedJob(w, "x@example.org"))[0], queue.Delivered, 250)
}

// That a server is paused does not hide that the other one failed.
func TestPausedAndDead(t *testing.T) {
	w := newWorld(t).start()
	one := queue.Hold{ID: 7, Kind: queue.HoldRoute, Value: "mx1.example.org"}
	wantResult(t, w.deliver(pausedJob(w, "x@example.org", one))[0], queue.Deferred, 0, "refused")
}

// Mail fails for good only if it does with every server, a paused one included.
func TestPausedAndFailed(t *testing.T) {
	w := newWorld(t)
	ca := newAuthority(t)
	w.lookup.roots.AddCert(ca.cert)
	p := newPeer(t) // does not offer REQUIRETLS
	p.tls = serverTLS(ca.good(t, "mx2.example.org"))
	w.at("192.0.2.2:25", p.start()).start()
	j := pausedJob(w, "x@example.org", queue.Hold{ID: 7, Kind: queue.HoldRoute, Value: "mx1.example.org"})
	j.Message.RequireTLS = true
	if r := w.deliver(j)[0]; r.Outcome != queue.Paused || r.Hold != 7 {
		t.Errorf("result %+v", r)
	}
}

func TestLanesListed(t *testing.T) {
	w, p := relayWorld(t)
	w.start()
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	list, err := w.mta.Lanes(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	if l := list[0]; l.Servers != "192.0.2.3:25" || l.Sessions != 1 || l.Busy > 1 || l.Limit < laneFirst {
		t.Errorf("%+v", l)
	}
	p.on("MAIL", cut)
	p.on("", cut)
	wantResult(t, w.one("x@example.org"), queue.Deferred, 0)
	if list, _ = w.mta.Lanes(t.Context()); list[0].Sessions != 0 {
		t.Errorf("after the end: %+v", list)
	}
	long := shortServers(strings.Repeat("mx.example.org:25 ", 100))
	if len(long) > maxServers+3 || !strings.HasSuffix(long, ":25 ...") {
		t.Errorf("long list: %q", long)
	}
}

// What is explained is what the queue holds now, not what some job brought along.
func TestExplainPaused(t *testing.T) {
	w := newWorld(t)
	w.at("192.0.2.1:25", newPeer(t).start()).at("192.0.2.2:25", newPeer(t).start()).start()
	one := queue.Hold{ID: 7, Kind: queue.HoldRoute, Value: "mx1.example.org"}
	wantResult(t, w.deliver(pausedJob(w, "x@example.org", one))[0], queue.Delivered, 250)
	for _, tt := range []struct {
		paused []queue.Hold
		want   bool
	}{{nil, false}, {[]queue.Hold{one}, true}} {
		e, err := w.mta.Explain(t.Context(), ExplainRequest{Action: "out", Address: "x@example.org", Paused: tt.paused})
		if err != nil || len(e.Hosts) != 2 || (e.Hosts[0].Fault != nil) != tt.want {
			t.Errorf("with %v: %+v, %v", tt.paused, e.Hosts, err)
		}
	}
}
