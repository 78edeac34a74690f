// Package privsep runs the parts of Tabard as separate processes of one binary.
//
// The supervisor starts the binary again for each process, with argv[0]
// "tabard: NAME" and a control socket as descriptor 3. Over it a process gets
// its configuration, its listening sockets and, for each edge to another
// process, one end of a fresh socketpair; what the processes say to each other
// there the supervisor never sees. From a process it reads small bounded
// messages only: ready, layers in force, last words, and requests, which the
// process' Spec has to allow.
//
// A process that ends is started again, with backoff, and gets new edges; so do
// its peers. When the supervisor dies, its processes notice and stop.
package privsep

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"tabard/internal/sandbox"
)

// EmptyRoot as Spec.Chroot stands for a new directory that is removed as soon
// as the process is in it: nothing is in it, and nothing can be made in it.
const EmptyRoot = "(empty)"

// Spec describes a process.
type Spec struct {
	// Name is unique: "smtpd", "deliver 1000".
	Name string
	// Init is what Child.Init decodes in the process: plain data, at most 8 MiB
	// encoded. Secrets go to a process that may know them only.
	Init any
	// Listeners are handed over at each start.
	Listeners []Listener
	// Credential is who the process becomes when it drops privileges, if the
	// supervisor runs as root; nil leaves it as it is.
	Credential *Credential
	// Chroot is a directory, EmptyRoot, or empty for none. As root only.
	Chroot string
	// Undumpable keeps the memory of the process from others with its user id,
	// and from core files.
	Undumpable bool
	// SetuidPrograms lets the process execute programs that change their user
	// (mail delivery agents); otherwise the system refuses them for good.
	SetuidPrograms bool
	// Sandbox says how seriously the layers of Child.DropPrivileges are taken;
	// the zero Mode does without any.
	Sandbox sandbox.Mode
	// Replaceable processes are those that Supervisor.Replace starts anew.
	Replaceable bool
	// Env is the environment; nil is a minimal one without anything that may
	// hold a secret.
	Env []string
	// OnRequest answers Child.Request; nil refuses every request. It may be
	// called many times at once. The error's text goes to the process.
	OnRequest func(ctx context.Context, r Request) (any, error)
}

// Listener is a socket that the supervisor opened (see Listen) for a process.
// The supervisor owns the file and closes it when it stops.
type Listener struct {
	Name string
	File *os.File
}

// Edge connects two processes, named by their Specs. Both ends get a socket of
// the same pair; From makes the calls.
type Edge struct {
	Name     string
	From, To string
}

// Options are the supervisor's.
type Options struct {
	Log *slog.Logger // required
	// StartTimeout bounds how long a process may take until it is ready. When the
	// supervisor starts, one that takes longer fails the start; later it is killed
	// and started again, each time with twice as much time, up to 32 times as much.
	// Default 2 min.
	StartTimeout time.Duration
	// StopTimeout bounds a clean stop of all processes together. Default 30 s.
	StopTimeout time.Duration
	// SwitchTimeout bounds each step of putting a generation in force: a process
	// that does not answer must not keep the others from working. Default 5 s.
	SwitchTimeout time.Duration
	// MaxRetired is how many generations that were replaced may finish their
	// work at once; the oldest one above is stopped. Default 4.
	MaxRetired int
	// Backoff paces the restarts.
	Backoff Backoff
	// Ready is called once, when every process is ready.
	Ready func()
}

func (o *Options) defaults() {
	if o.StartTimeout == 0 {
		o.StartTimeout = 2 * time.Minute
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 30 * time.Second
	}
	if o.SwitchTimeout == 0 {
		o.SwitchTimeout = 5 * time.Second
	}
	if o.MaxRetired == 0 {
		o.MaxRetired = 4
	}
	o.Backoff.defaults()
}

// Errors of Spawn, Add and Connect.
var (
	ErrNotReady = errors.New("not ready, started again until it is")
	ErrStopping = errors.New("the supervisor is stopping")
	ErrRunning  = errors.New("already running")
	ErrNoSuch   = errors.New("no such process")
)
