package mta

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"tabard/queue"
)

// TestRetire: a retired MTA takes nothing more and hands back what waits at once,
// but finishes what runs, however long that takes.
func TestRetire(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Limits.PerDestination = 1
		c.StopTimeout = time.Nanosecond // is for a stop only
	})
	p := newPeer(t)
	g := newGate()
	p.on(".", g.hold)
	w.at("192.0.2.1:25", p.start()).start()
	jobs := w.flood(5, "x@example.org")
	<-g.in
	w.mta.Retire(t.Context())
	late := w.flood(1, "y@example.org")[0]
	outcomes := make(map[queue.Outcome]int)
	results := make(chan queue.Result, len(jobs))
	for _, j := range jobs {
		go func() { results <- w.queue.await(t, j.Envelopes[0].ID) }()
	}
	for range 4 {
		outcomes[(<-results).Outcome]++
	}
	select {
	case err := <-w.done:
		t.Errorf("Run ended with a transaction open: %v", err)
		w.done <- err
	default:
	}
	close(g.open)
	outcomes[(<-results).Outcome]++
	if outcomes[queue.Delivered] != 1 || outcomes[queue.Returned] != 4 {
		t.Errorf("outcomes %v", outcomes)
	}
	err := <-w.done
	w.done <- err
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	if n := len(w.queue.channel(late.Envelopes[0].ID)); n > 0 || len(w.queue.jobs) != 1 {
		t.Error("a job was taken afterwards")
	}
	if n := len(p.got()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}

// slowWorker is a queue that takes its time to end a Take that is given up.
type slowWorker struct {
	queue.Worker
	asked   chan struct{}
	retired chan struct{}
	early   bool
}

func (w *slowWorker) Take(ctx context.Context, _ int) ([]queue.Job, error) {
	close(w.asked)
	<-ctx.Done()
	select {
	case <-w.retired:
		w.early = true
	case <-time.After(20 * time.Millisecond):
	}
	return nil, ctx.Err()
}

// TestRetireWaitsForTake: when Retire returns, the queue gives nothing more.
func TestRetireWaitsForTake(t *testing.T) {
	w := newWorld(t)
	slow := &slowWorker{Worker: w.queue, asked: make(chan struct{}), retired: make(chan struct{})}
	w.mta.queue = slow
	w.start()
	<-slow.asked
	w.mta.Retire(t.Context())
	close(slow.retired)
	err := <-w.done
	w.done <- err
	if slow.early {
		t.Error("Retire returned while jobs were asked for")
	}
}

// lastMoment is a connection that is closed from outside, by retire, after the
// answer to EHLO was read and before anything else can happen.
type lastMoment struct {
	net.Conn
	retire func()
	closed chan struct{}
	once   sync.Once
}

func (c *lastMoment) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.Contains(p[:n], []byte("250 ")) {
		c.retire()
		<-c.closed
	}
	return n, err
}

func (c *lastMoment) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestRetireWhileOpening: a job whose connection is just being opened is handed
// back, and not tried on the connection that was cut.
func TestRetireWhileOpening(t *testing.T) {
	var w *world
	w, p := relayWorld(t, func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, source, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, source, address)
			return &lastMoment{Conn: conn, retire: func() { w.mta.rest() }, closed: make(chan struct{})}, err
		}
	})
	w.start()
	wantResult(t, w.one("x@example.org"), queue.Returned, 0)
	err := <-w.done
	w.done <- err
	if n := len(p.got()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestRetireGivesUp: what waits for the rest of Run does so no longer than it may.
func TestRetireGivesUp(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.mta.Retire(ctx) // nothing runs
	w.flood(1, "x@example.org")
	w.start()
	err := <-w.done
	w.done <- err
	if len(w.queue.jobs) != 1 {
		t.Error("a job was taken by one retired before it ran")
	}
}

// TestRetireThenStop: a stop cuts off what a retired one still does.
func TestRetireThenStop(t *testing.T) {
	w, p := relayWorld(t, func(c *Config) { c.StopTimeout = 50 * time.Millisecond })
	g := newGate()
	p.on(".", g.hold)
	w.start()
	j := w.flood(1, "x@example.org")[0]
	<-g.in
	w.mta.Retire(t.Context())
	w.stop()
	wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Returned, 0)
	close(g.open)
}
