package queue

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"tabard/internal/bodycode"
	"tabard/internal/eventlog"
)

// Defaults of Options.
const (
	DefaultTTL         = 4 * 24 * time.Hour
	DefaultWarn        = 4 * time.Hour
	DefaultMaxActive   = 20_000
	DefaultMaxBytes    = 64 << 20
	DefaultConcurrency = 500
	DefaultFirst       = 2
	DefaultProbes      = 500
	DefaultGather      = 2 * time.Second
	DefaultMaxDeferred = 100
)

// Options are the choices of a queue. Zero values take the defaults.
type Options struct {
	Logger   *slog.Logger      // nil: discarded
	Events   eventlog.Recorder // the event log; nil: none
	Stages   bool              // the event log has the stages of messages, too
	Hostname string            // names us in bounces; empty: localhost

	TTL           time.Duration   // how long a message is tried, unless its action says otherwise
	Retry         []time.Duration // pauses after the 1st, 2nd, ... attempt, the last one repeated; empty: quadratic
	WarnIntervals []time.Duration // ages at which the sender is told of a delay; nil: DefaultWarn, empty: never

	// Jitter returns what chance adds to a pause: from 0 to most. nil: chance decides.
	Jitter func(most time.Duration) time.Duration

	// MaxDeferred is how many envelopes of a destination that could not be reached
	// are tried at once when it takes mail again; less than 0: none.
	MaxDeferred int

	MaxActive   int // envelopes in memory
	MaxBytes    int // bytes of bodies in memory that wait for their first attempt
	Concurrency int // jobs that one destination may have in flight
	First       int // the same, for a destination of which nothing is known: one to learn, and one lest a large message holds up the rest
	Probes      int // jobs in flight to all destinations that have not answered yet; half of what the relay worker takes at once is right

	// Gather is how long a report waits at most for other recipients of the message
	// that are being tried, to be about them, too.
	Gather time.Duration

	// Spawn starts a worker for local deliveries as uid, which then attaches
	// itself. It is called when there is work for a uid without a worker. nil:
	// workers come by themselves.
	Spawn func(ctx context.Context, uid, gid int) error

	// Coder is how bodies are stored; nil: as they are. See SetCoder.
	Coder *bodycode.Coder
}

func (o Options) filled() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Hostname == "" {
		o.Hostname = "localhost"
	}
	if o.TTL <= 0 {
		o.TTL = DefaultTTL
	}
	if o.WarnIntervals == nil {
		o.WarnIntervals = []time.Duration{DefaultWarn}
	}
	if o.Jitter == nil {
		o.Jitter = func(most time.Duration) time.Duration { return rand.N(most + 1) }
	}
	if o.MaxActive <= 0 {
		o.MaxActive = DefaultMaxActive
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Concurrency <= 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.First <= 0 {
		o.First = DefaultFirst
	}
	if o.Probes <= 0 {
		o.Probes = DefaultProbes
	}
	if o.MaxDeferred == 0 {
		o.MaxDeferred = DefaultMaxDeferred
	}
	if o.Gather <= 0 {
		o.Gather = DefaultGather
	}
	return o
}

// Rules are the options that can change while a queue runs. Zero values take the
// defaults.
type Rules struct {
	Hostname      string
	TTL           time.Duration
	Retry         []time.Duration
	WarnIntervals []time.Duration
	MaxDeferred   int
	Stages        bool
}

// rules returns the part of filled options that can change.
func (o *Options) rules() *Rules {
	return &Rules{Hostname: o.Hostname, TTL: o.TTL, Retry: o.Retry, WarnIntervals: o.WarnIntervals, MaxDeferred: o.MaxDeferred, Stages: o.Stages}
}

// SetRules puts other rules in force: for messages that come from now on and for
// the next attempts of those that are here. These keep when they expire and when
// their next attempt is due. What is known of actions is asked for again; learned
// is called when that is known, or cannot be asked for at the moment.
func (q *Queue) SetRules(r Rules, learned func()) {
	o := Options{
		Hostname: r.Hostname, TTL: r.TTL, Retry: r.Retry, WarnIntervals: r.WarnIntervals, MaxDeferred: r.MaxDeferred, Stages: r.Stages,
	}.filled()
	q.rules.Store(o.rules())
	q.goWhile(func() {
		q.actions.renew(q.ctx)
		learned()
	})
}
