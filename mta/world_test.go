package mta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tabard/internal/dns"
	"tabard/internal/dns/dnstest"
	"tabard/internal/logging/logtest"
	"tabard/lookup"
	"tabard/queue"
)

// world is an MTA with everything around it: a queue and a lookup in memory, a
// real DNS server, and a network in which documentation addresses lead to
// servers on 127.0.0.1.
type world struct {
	t      testing.TB
	queue  *memQueue
	lookup *memLookup
	dns    *dnstest.Server
	log    *logtest.Buffer
	mta    *MTA
	stop   context.CancelFunc
	done   chan error

	mu    sync.Mutex
	ports map[string]string // address -> real address
	dials map[string]int
	from  map[string][]string // address -> sources of the connections to it
	open  int                 // connections now, and the most there were
	most  int
}

const testZone = `
example.org.      MX 10 mx1.example.org.
example.org.      MX 20 mx2.example.org.
mx1.example.org.  A 192.0.2.1
mx2.example.org.  A 192.0.2.2
other.example.    A 192.0.2.3
null.example.     MX 0 .
`

func newWorld(t testing.TB, adjust ...func(*Config)) *world {
	t.Helper()
	w := &world{
		t: t, queue: newMemQueue(), lookup: newMemLookup(), dns: dnstest.Start(t, testZone), log: new(logtest.Buffer),
		ports: make(map[string]string), dials: make(map[string]int), from: make(map[string][]string), done: make(chan error, 1),
	}
	cfg := Config{
		Hostname: "us.example.net",
		Resolver: dns.New(dns.Config{Servers: []string{w.dns.Addr()}, Timeout: time.Second}),
		Dial:     w.dial,
		Logger:   slog.New(slog.NewTextHandler(w.log, nil)),
		Timeouts: Timeouts{
			Connect: 5 * time.Second, Greeting: 5 * time.Second, Command: 5 * time.Second, TLS: 5 * time.Second,
			Data: 5 * time.Second, Block: 5 * time.Second, End: 5 * time.Second, Quit: 5 * time.Second,
			Idle: time.Minute,
		},
		StopTimeout: 5 * time.Second,
	}
	for _, f := range adjust {
		f(&cfg)
	}
	w.mta = New(cfg, w.lookup, w.queue)
	return w
}

// start runs the MTA until the test ends or stop is called.
func (w *world) start() *world {
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	go func() { w.done <- w.mta.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-w.done; err != nil {
			w.t.Error(err)
		}
		w.done <- nil
	})
	return w
}

// at makes address lead to a real server, or with "hang" to one that never
// answers.
func (w *world) at(address, real string) *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports[address] = real
	return w
}

func (w *world) dial(ctx context.Context, network, source, address string) (net.Conn, error) {
	w.mu.Lock()
	real, ok := w.ports[address]
	w.dials[address]++
	w.from[address] = append(w.from[address], source)
	w.mu.Unlock()
	if network == "unix" {
		return dial(ctx, network, source, address)
	}
	if real == "hang" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	conn, err := dial(ctx, network, "", real)
	if err == nil {
		w.opened(1)
		conn = &countedConn{Conn: conn, w: w}
	}
	return conn, err
}

func (w *world) opened(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open += n
	w.most = max(w.most, w.open)
}

// countedConn says when it is closed.
type countedConn struct {
	net.Conn
	w    *world
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.w.opened(-1) })
	return c.Conn.Close()
}

// sources returns where an address was dialled from.
func (w *world) sources(address string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.from[address]
}

func (w *world) dialled(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials[address]
}

const (
	testFrom = "MARK-sender@client.example"
	testBody = "Subject: test\r\n\r\nMARK-body\r\n.dot\r\n"
)

// job makes a job for recipients, whose domain is that of the first.
func job(id int, to ...string) queue.Job {
	j := queue.Job{
		Message: queue.Message{ID: queue.MessageID(id), Sender: testFrom, Size: int64(len(testBody))},
		Body:    []byte(testBody),
	}
	for i, addr := range to {
		env := queue.Envelope{ID: queue.EnvelopeID{Message: j.Message.ID, N: i}, Address: addr, Recipient: addr, Action: "out", Relay: true}
		j.Envelopes = append(j.Envelopes, env)
	}
	j.Domain = to[0][strings.LastIndexByte(to[0], '@')+1:]
	return j
}

// deliver hands a job to a running MTA and waits for all its results, in order
// of the envelopes.
func (w *world) deliver(j queue.Job) []queue.Result {
	w.t.Helper()
	w.queue.push(j)
	out := make([]queue.Result, len(j.Envelopes))
	for i, env := range j.Envelopes {
		out[i] = w.queue.await(w.t, env.ID)
	}
	return out
}

// stream makes the body of a job one that is asked for in chunks of so many bytes.
func (w *world) stream(j *queue.Job, chunk int) {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	w.queue.bodies[j.Message.ID], w.queue.chunk = j.Body, chunk
	j.Body = nil
}

// one delivers to a single recipient.
func (w *world) one(to string) queue.Result {
	w.t.Helper()
	return w.deliver(job(w.queue.nextID(), to))[0]
}

func (w *world) relay(urls ...lookup.RelayURL) *world {
	w.lookup.set(lookup.Route{Hosts: urls})
	return w
}

func wantResult(t testing.TB, r queue.Result, outcome queue.Outcome, code int, parts ...string) {
	t.Helper()
	text := fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text)
	ok := r.Outcome == outcome && (code == 0 || r.Code == code)
	for _, part := range parts {
		ok = ok && strings.Contains(text, part)
	}
	if !ok {
		t.Errorf("result is %s %q; want %s with code %d and %q",
			r.Outcome.String(), text, outcome.String(), code, parts)
	}
}

// memQueue is a queue.Worker in memory. Results for an envelope are kept until
// awaited.
type memQueue struct {
	mu       sync.Mutex
	ids      int
	jobs     []queue.Job
	wake     chan struct{}
	results  map[queue.EnvelopeID]chan queue.Result
	bodies   map[queue.MessageID][]byte
	chunk    int           // at most so many bytes per Body
	bodyErr  error         // answer of Body
	doneErr  int           // so many calls of Done fail
	patience time.Duration // of await; default 60 s
	most     int           // largest number of jobs out at once
	out      int
}

func newMemQueue() *memQueue {
	return &memQueue{
		wake: make(chan struct{}, 1), results: make(map[queue.EnvelopeID]chan queue.Result),
		bodies: make(map[queue.MessageID][]byte), chunk: 1 << 20,
	}
}

func (q *memQueue) nextID() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ids++
	return q.ids
}

func (q *memQueue) push(jobs ...queue.Job) {
	q.mu.Lock()
	for _, j := range jobs {
		for _, env := range j.Envelopes {
			q.channel(env.ID)
		}
	}
	q.jobs = append(q.jobs, jobs...)
	q.mu.Unlock()
	q.ring()
}

func (q *memQueue) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *memQueue) channel(id queue.EnvelopeID) chan queue.Result {
	if q.results[id] == nil {
		q.results[id] = make(chan queue.Result, 10)
	}
	return q.results[id]
}

func (q *memQueue) await(t testing.TB, id queue.EnvelopeID) queue.Result {
	t.Helper()
	q.mu.Lock()
	c := q.channel(id)
	q.mu.Unlock()
	select {
	case r := <-c:
		return r
	case <-time.After(or(q.patience, 60*time.Second)):
		t.Fatalf("no result for %s", id)
		return queue.Result{}
	}
}

func (q *memQueue) Take(ctx context.Context, limit int) ([]queue.Job, error) {
	for {
		q.mu.Lock()
		n := min(limit, len(q.jobs))
		jobs := q.jobs[:n]
		q.jobs = q.jobs[n:]
		q.out += n
		q.most = max(q.most, q.out)
		q.mu.Unlock()
		if n > 0 {
			return jobs, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (q *memQueue) Body(_ context.Context, id queue.MessageID, offset int64, max int) ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bodyErr != nil && offset > 0 {
		return nil, q.bodyErr
	}
	body := q.bodies[id]
	if offset >= int64(len(body)) {
		return nil, nil
	}
	body = body[offset:]
	return bytes.Clone(body[:min(len(body), max, q.chunk)]), nil
}

func (q *memQueue) Done(_ context.Context, results []queue.Result) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.doneErr > 0 {
		q.doneErr--
		return errors.New("queue is away")
	}
	q.out--
	for _, r := range results {
		q.channel(r.ID) <- r
	}
	return nil
}
