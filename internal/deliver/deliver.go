// Package deliver is what the `deliver` process of one user runs: it takes
// local jobs from the queue and puts each message into a maildir or mbox file,
// hands it to an LMTP server, or feeds it to a command.
//
// A result of Delivered is a promise: the message is on disk and its name too
// (maildir, mbox), or whoever said yes has taken it over (lmtp, mda). Every
// doubt is Deferred, so that a message may arrive twice after a crash, never
// not at all.
//
// Stored bodies have CRLF line ends. Files and commands get LF line ends, with
// Return-Path and Delivered-To in front; an LMTP server gets the body as it is.
package deliver

import (
	"context"
	"log/slog"
	"os"
	"time"

	"tabard/queue"
)

// Defaults of Options.
const (
	DefaultParallel    = 16
	DefaultTimeout     = 5 * time.Minute
	DefaultGrace       = 20 * time.Second
	DefaultLMTPTimeout = 5 * time.Minute
)

// Options of a deliver process. The zero value is usable.
type Options struct {
	Logger   *slog.Logger // nil: nothing is logged
	Hostname string       // in LHLO and file names; empty: the system's
	Parallel int          // deliveries at a time; 0: DefaultParallel

	// Timeout bounds one run of an mda command and the wait for an mbox lock;
	// 0: DefaultTimeout.
	Timeout time.Duration
	// LMTPTimeout bounds each wait for an LMTP server; the wait for the reply
	// to the end of data may take twice as long. 0: DefaultLMTPTimeout.
	LMTPTimeout time.Duration
	// Grace is how long running deliveries may go on when the process is told
	// to stop; then they are cut and Returned. 0: DefaultGrace.
	Grace time.Duration
	// Idle ends Run when nothing was delivered for so long; 0: never.
	Idle time.Duration
	// AnyUser carries out deliveries that ask for another user id as this
	// process' own user, for a server that was not started as root. Without it
	// such a delivery is deferred.
	AnyUser bool
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname() // an empty name is replaced where it is used
	}
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	setDefault(&o.Timeout, DefaultTimeout)
	setDefault(&o.LMTPTimeout, DefaultLMTPTimeout)
	setDefault(&o.Grace, DefaultGrace)
	return o
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Run takes jobs from worker and carries them out until ctx ends, until it was
// idle for Options.Idle, or until the queue fails. Deliveries that are running
// then are finished within Options.Grace and reported; jobs not begun are
// Returned. Run returns nil, except when the queue failed.
//
// Run makes every file descriptor above 2 that the process holds close on
// exec, so that no command gets the connection to the queue.
func Run(ctx context.Context, worker queue.Worker, opt Options) error {
	closeInherited()
	a := newAgent(worker, opt.withDefaults(), osFS{})
	defer a.lmtp.close()
	return a.run(ctx)
}

// agent is the state of one Run.
type agent struct {
	worker queue.Worker
	opt    Options
	log    *slog.Logger
	fs     filesystem
	host   string // safe in file names
	uid    int
	dirs   *dirSyncer
	swept  *sweeps
	boxes  *keyedLock
	lmtp   *lmtpPool
}

func newAgent(worker queue.Worker, opt Options, fsys filesystem) *agent {
	return &agent{
		worker: worker,
		opt:    opt,
		log:    opt.Logger,
		fs:     fsys,
		host:   fileHost(opt.Hostname),
		uid:    os.Geteuid(),
		dirs:   newDirSyncer(fsys),
		swept:  newSweeps(),
		boxes:  newKeyedLock(),
		lmtp:   newLMTPPool(lhloName(opt.Hostname), opt.LMTPTimeout, opt.Parallel),
	}
}
