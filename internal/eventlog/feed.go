package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"tabard/internal/rpc"
)

// Options of a Feed. Zero values take the defaults.
type Options struct {
	Process string       // smtpd, queue or mta
	Node    string       // host name
	Log     *slog.Logger // nil: discarded
	Off     bool         // nothing is recorded until Switch
	// MaxEvents and MaxBytes bound what waits; 50,000 and 32 MiB.
	MaxEvents, MaxBytes int
	Gather              time.Duration // how long a batch waits for more; 300 ms
	Retry               time.Duration // pause after the first failure to write, then longer, up to 20 times; 250 ms
	Flush               time.Duration // how long Close writes what waits; 3 s
}

const (
	writeTimeout = 30 * time.Second // for one batch
	maxRetries   = 20               // times Options.Retry is the longest pause
	flushTimeout = 3 * time.Second
)

// Feed takes the events of one process and hands them to lookup in batches, in the
// background. It is a Recorder, safe for concurrent use.
type Feed struct {
	opts   Options
	caller rpc.Caller
	on     atomic.Bool
	wake   chan struct{}   // something waits
	full   chan struct{}   // a whole batch does
	stop   context.Context // ends with Close
	cancel context.CancelFunc
	hard   context.Context // ends when nothing more is written
	cut    context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	waiting []queued
	bytes   int
	key     int64
	losing  *Loss // what is being dropped now; nil: nothing
	stats   Stats
}

type queued struct {
	event Event
	size  int
}

// Stats is how the events of a process fare.
type Stats struct {
	Written int64 // are in the database
	Lost    int64 // are not, and will not be
	Waiting int64
}

// NewFeed returns a feed that calls lookup, at the other end of c, which serves a Hub.
// Close ends it.
func NewFeed(c rpc.Caller, o Options) *Feed {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxEvents <= 0 {
		o.MaxEvents = 50_000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 32 << 20
	}
	if o.Gather <= 0 {
		o.Gather = 300 * time.Millisecond
	}
	if o.Flush <= 0 {
		o.Flush = flushTimeout
	}
	if o.Retry <= 0 {
		o.Retry = 250 * time.Millisecond
	}
	f := &Feed{
		opts: o, caller: c, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), done: make(chan struct{}),
		key: rand.Int64(), //nolint:gosec // a name, not a secret
	}
	f.on.Store(!o.Off)
	f.stop, f.cancel = context.WithCancel(context.Background())
	f.hard, f.cut = context.WithCancel(context.Background())
	go f.run()
	return f
}

// Switch turns recording on or off. What waits is still written.
func (f *Feed) Switch(on bool) { f.on.Store(on) }

// On implements Recorder.
func (f *Feed) On() bool { return f.on.Load() }

// Record implements Recorder.
func (f *Feed) Record(e Event) {
	if !f.on.Load() {
		return
	}
	h := e.Common()
	if h.At.IsZero() {
		h.At = time.Now()
	}
	h.Node, h.Process = f.opts.Node, f.opts.Process
	size := Clean(e)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.key++
	h.Key = f.key
	if f.losing != nil || len(f.waiting) >= f.opts.MaxEvents || f.bytes+size > f.opts.MaxBytes {
		f.lose(h.At, 1, "the database was not written to in time")
		return
	}
	f.push(e, size)
}

// push needs mu.
func (f *Feed) push(e Event, size int) {
	f.waiting = append(f.waiting, queued{e, size})
	f.bytes += size
	signal(f.wake)
	if len(f.waiting) >= MaxBatch {
		signal(f.full)
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// lose counts events that are dropped. Needs mu.
func (f *Feed) lose(at time.Time, n int64, reason string) {
	f.stats.Lost += n
	if f.losing == nil {
		f.losing = &Loss{Since: at, Reason: reason}
		f.opts.Log.Warn("events are lost for the event log", "reason", reason)
	}
	f.losing.Count += n
	f.losing.Until = at
}

// Stats returns the counters.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Waiting = int64(len(f.waiting))
	return s
}

// Close writes what waits, for as long as Options.Flush, and ends the feed. What is recorded
// afterwards is lost.
func (f *Feed) Close() {
	f.on.Store(false)
	f.cancel()
	defer time.AfterFunc(f.opts.Flush, f.cut).Stop()
	<-f.done
	f.cut()
}

// run hands batches on until Close.
func (f *Feed) run() {
	defer close(f.done)
	for f.stop.Err() == nil {
		select {
		case <-f.wake:
		case <-f.stop.Done():
			continue
		}
		wait(f.stop, f.opts.Gather, f.full)
		f.drain(f.stop)
	}
	// A lookup that is away, or a database that is, must not keep the process.
	f.drain(f.hard)
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.waiting); n > 0 {
		f.stats.Lost += int64(n)
		f.waiting = nil
		f.opts.Log.Error("events are lost for the event log: they could not be written before the end", "events", n)
	}
}

// wait waits for d, or until ctx ends or early comes.
func wait(ctx context.Context, d time.Duration, early <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-early:
	case <-ctx.Done():
	}
}

// drain writes batches until none waits, or patience ends.
func (f *Feed) drain(patience context.Context) {
	failures := 0
	for {
		batch, n := f.next()
		if n == 0 {
			return
		}
		err := f.write(batch)
		switch {
		case err == nil, errors.Is(err, rpc.ErrNotFound):
			if failures > 0 {
				f.opts.Log.Info("the event log is written again")
			}
			failures = 0
			f.written(n, err == nil)
			continue
		case errors.Is(err, rpc.ErrInvalid), errors.Is(err, rpc.ErrTooLarge):
			f.opts.Log.Error("events are refused by the event log", "events", n, "error", err)
			f.refused(batch, n)
			continue
		case failures == 0 && patience.Err() == nil:
			f.opts.Log.Warn("the event log cannot be written at the moment; events wait", "error", err)
		}
		if failures++; patience.Err() != nil {
			return
		}
		wait(patience, f.opts.Retry*time.Duration(min(failures, maxRetries)), nil)
		if patience.Err() != nil {
			return
		}
	}
}

// next returns the events that go next, which stay until written or refused.
func (f *Feed) next() (*Batch, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := &Batch{}
	n, size := 0, 0
	for n < len(f.waiting) && n < MaxBatch && (n == 0 || size+f.waiting[n].size <= maxBytes) {
		b.Add(f.waiting[n].event)
		size += f.waiting[n].size
		n++
	}
	return b, n
}

func (f *Feed) write(b *Batch) error {
	ctx, cancel := context.WithTimeout(f.hard, writeTimeout)
	defer cancel()
	_, err := rpc.Invoke[delivery, rpc.None](ctx, f.caller, methodWrite, delivery{Batch: *b, Stats: f.Stats()})
	return err
}

// written lets go of the first n events.
func (f *Feed) written(n int, kept bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pop(n)
	if kept {
		f.stats.Written += int64(n)
	}
	f.tell()
}

// tell makes a Loss of what was lost, once there is room again. Needs mu.
func (f *Feed) tell() {
	if l := f.losing; l != nil && len(f.waiting) <= f.opts.MaxEvents/2 && f.bytes <= f.opts.MaxBytes/2 {
		f.losing = nil
		f.key++
		l.Head = Head{At: time.Now(), Key: f.key, Node: f.opts.Node, Process: f.opts.Process}
		f.push(l, Clean(l))
		f.opts.Log.Warn("events were lost for the event log", "events", l.Count, "since", l.Since, "until", l.Until, "reason", l.Reason)
	}
}

// refused lets go of the first n events, which nobody takes. A Loss that is refused
// itself leads to no other.
func (f *Feed) refused(b *Batch, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.waiting[0].event.Common().At
	last := f.waiting[n-1].event.Common().At
	f.pop(n)
	if n == len(b.Losses) {
		f.stats.Lost += int64(n)
		return
	}
	f.lose(first, 0, "refused")
	f.lose(last, int64(n), "refused")
	f.tell()
}

// pop needs mu.
func (f *Feed) pop(n int) {
	for _, q := range f.waiting[:n] {
		f.bytes -= q.size
	}
	clear(f.waiting[:n])
	f.waiting = f.waiting[n:]
	if len(f.waiting) == 0 {
		f.waiting = nil
	}
}
