package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"tabard/internal/config"
	"tabard/internal/privsep"
	"tabard/table"
)

type configInit struct {
	Common common
	Path   string
	Name   string
}

// askConfig is the request by which the process config hands over what it read.
const askConfig = "config"

// configPiece is a part of a text, or the reason why there is none. A message to
// the supervisor is bounded; a text may be larger.
type configPiece struct {
	Name  string
	Fault string
	Data  []byte
	First bool
	Last  bool
}

const (
	pieceSize    = 32 << 10
	configPoll   = 3 * time.Second  // while changes are not told
	configSettle = 30 * time.Second // while they are
)

// runConfig reads the configuration from a database and follows its changes. It
// has the connection; the supervisor gets the text.
func runConfig(ctx context.Context, c *privsep.Child) error {
	var in configInit
	log, end, err := initialise(c, &in, &in.Common)
	if err != nil {
		return err
	}
	defer end()
	src := confSource{path: in.Path, name: in.Name}
	// A file with the password, or the database, may be readable only now.
	t, err := src.open(ctx, log)
	if err != nil {
		return err
	}
	defer func() { _ = t.Backend().Close() }()
	if _, err := c.DropPrivileges(tablesProfile([]config.Table{src.declared()})); err != nil {
		return err
	}
	if err := c.Ready(); err != nil {
		return err
	}
	r := configReader{src: src, table: t, log: log, changed: make(chan struct{}, 1), told: make(chan bool, 1), send: func(text confText, fault string) error {
		return sendConfig(ctx, c, text, fault)
	}}
	return ended(ctx, r.run(ctx))
}

// configReader hands over a configuration at first and whenever it changes.
type configReader struct {
	src     confSource
	table   *table.Table
	log     *slog.Logger
	changed chan struct{}
	told    chan bool // whether changes are told from now on
	send    func(text confText, fault string) error
	last    confText
	fault   string
	down    bool
}

func (r *configReader) run(ctx context.Context) error {
	go r.watch(ctx)
	every := configPoll
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case told := <-r.told:
			if every = configPoll; told {
				every = configSettle
			}
		case <-r.changed:
		case <-tick.C:
		}
		if err := r.look(ctx); err != nil {
			return err
		}
		next := every
		if r.down {
			next = configPoll
		}
		tick.Reset(next)
	}
}

// look reads the text and hands it over if it is another one. A database that is
// down changes nothing.
func (r *configReader) look(ctx context.Context) error {
	text, err := r.src.read(ctx, r.table)
	fault := ""
	switch {
	case errors.Is(err, table.ErrNotFound):
		fault = err.Error()
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil:
		if !r.down {
			r.log.Warn("configuration cannot be read from the database at the moment", "error", err)
		}
		r.down = true
		return nil
	}
	if r.down {
		r.down = false
		r.log.Info("the database with the configuration answers again")
	}
	if fault == r.fault && (fault != "" || text == r.last) {
		return nil
	}
	if err := r.send(text, fault); err != nil {
		return err
	}
	r.last, r.fault = text, fault
	return nil
}

// watch follows the database's own notice of changes, if it gives any.
func (r *configReader) watch(ctx context.Context) {
	w, ok := r.table.Backend().(table.Watcher)
	for ok && ctx.Err() == nil {
		err := w.Watch(ctx, func(table.Change) {
			signalOnce(r.changed)
			r.tell(ctx, true)
		})
		if errors.Is(err, table.ErrUnsupported) {
			return
		}
		r.tell(ctx, false)
		select {
		case <-ctx.Done():
		case <-time.After(configPoll):
		}
	}
}

// tell replaces what was not heard yet.
func (r *configReader) tell(ctx context.Context, told bool) {
	select {
	case <-r.told:
	default:
	}
	select {
	case r.told <- told:
	case <-ctx.Done():
	default: // another said something at the same moment
	}
}

func signalOnce(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func sendConfig(ctx context.Context, c *privsep.Child, text confText, fault string) error {
	rest, first := []byte(text.Text), true
	for {
		n := min(len(rest), pieceSize)
		piece := configPiece{Name: text.Name, Fault: fault, Data: rest[:n], First: first, Last: n == len(rest)}
		if err := c.Request(ctx, askConfig, piece, nil); err != nil {
			return err
		}
		if rest, first = rest[n:], false; len(rest) == 0 {
			return nil
		}
	}
}
