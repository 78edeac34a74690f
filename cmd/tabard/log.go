package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/eventdb"
	"tabard/internal/config"
	"tabard/internal/eventlog"
)

// logCommand is `tabard log`.
type logCommand struct {
	g                   *globals
	query               eventdb.Query
	kinds               []string
	open                []string // arguments of which the log decides what they mean
	since, until, trace string
	follow, local       bool
	counted             bool // -n is given, perhaps 0
	now                 func() time.Time
	interval            time.Duration
}

func newLog(g *globals) *cobra.Command {
	c := &logCommand{g: g, now: time.Now, interval: followEvery}
	cmd := &cobra.Command{
		Use:   "log [WHAT]...",
		Short: "Search the event log: sessions, messages, attempts and their results",
		Long: `Log prints events of the event log (log sql in the configuration), one on a line, the
oldest first. WHAT narrows them down, by what it looks like:

  user@example.org      mail from or to an address, before or after aliases
  example.org           mail from or to a domain, if there is any; @example.org in any case
  0192f3a5c1d2e3f4      a session or a message, and all that belongs to it; also MESSAGE.N,
                        and the ids of OpenSMTPD and Postfix (short and long) from logs
                        that were imported
  <id@example.org>      a message, by its field Message-ID
  anything else         events in which the text occurs

Several of them, and flags, have to hold together. Without any the newest 100 events are
printed. --since and --until take a time before now (90s, 30m, 2h, 7d, "1 hour ago"),
today, yesterday, the last time of a clock (14:30), a day or a time (2026-11-28, "2026-11-28 14:30",
"Nov 28 14:30:00", or with a zone as in 2026-11-28T14:30:00+01:00). Times are read and
printed in UTC, as in the log itself, and with --local in the zone of this machine (TZ).

Results are delivered, relayed, expanded, failed, expired, removed and rejected (MAIL, RCPT,
a message or a login of a client was refused); outcomes of attempts ok, temp and perm. --trace ID shows all of
one message, with the time since its beginning. --json prints an object on each line, its
times always in UTC. --follow prints events in the order in which they come into the
database, so none is left out that comes late.

The exit code is 0 if there are events, 1 if there are none, 64 if the question is not
understood, 69 or 75 if the log cannot be read.`,
		Example: `  tabard log --since yesterday --result failed
  tabard log user@example.org greylisted
  tabard log --trace 0192f3a5c1d2e3f4
  tabard log -f --kind result,attempt example.org`,
		Args: cobra.ArbitraryArgs,
		RunE: c.run,
	}
	f := cmd.Flags()
	f.StringVar(&c.query.Address, "address", "", "mail from or to an `address`")
	f.StringVar(&c.query.Domain, "domain", "", "mail from or to a `domain`")
	f.StringVar(&c.query.ID, "id", "", "what belongs to a session, message, envelope or Message-ID")
	f.StringVar(&c.query.Result, "result", "", "ends of envelopes with a `result`, or attempts with an outcome")
	f.StringVar(&c.query.Text, "text", "", "events in which a `text` occurs, in any case")
	f.StringSliceVar(&c.kinds, "kind", nil, "only events of these kinds: session, message, envelope, attempt, result, trace, loss (default: all but trace)")
	f.StringVar(&c.since, "since", "", "events from a `time` on")
	f.StringVar(&c.until, "until", "", "events before a `time`")
	f.IntVarP(&c.query.Newest, "number", "n", 0, "the newest `N` events only; 0: all (default 100 without any restriction)")
	f.BoolVarP(&c.follow, "follow", "f", false, "go on with events as they come")
	f.BoolVar(&c.local, "local", false, "read and print times in the zone of this machine, not in UTC")
	f.StringVar(&c.trace, "trace", "", "all of one message or session, by its `ID`")
	cmd.AddCommand(newLogImport(g))
	return cmd
}

const (
	defaultEvents = 100
	followFirst   = 10          // events before those to come
	followEvery   = time.Second // between two looks
	maxNewest     = 1_000_000
)

func (c *logCommand) run(cmd *cobra.Command, args []string) error {
	c.counted = cmd.Flags().Changed("number")
	err := emptyFlag(cmd)
	if err == nil {
		err = c.understand(args)
	}
	if err != nil {
		return withCode(exUsage, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return c.g.withEvents(ctx, func(_ *config.Config, db *eventdb.DB) error {
		p := newEventPrinter(cmd.OutOrStdout())
		p.json, p.trace = c.g.json, c.trace != ""
		if c.local && !p.json {
			p.zone = time.Local
		}
		err := c.decide(ctx, db)
		if err == nil {
			err = errors.Join(c.print(ctx, cmd, db, p), p.flush())
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && p.printed == 0 {
			return errors.New("no such events")
		}
		return withCode(exTempFail, err)
	})
}

// withEvents opens the event log of the configuration.
func (g *globals) withEvents(ctx context.Context, f func(*config.Config, *eventdb.DB) error) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	name, src, err := eventTable(cfg)
	if err != nil {
		return err
	}
	if name == "" {
		return exitf(exConfig, "%s: there is no event log: add `log sql <TABLE>`", g.path())
	}
	db, err := eventdb.Open(ctx, src)
	if err != nil {
		return withCode(exUnavailable, err)
	}
	defer func() { _ = db.Close() }() // what was to be written is
	return f(cfg, db)
}

// understand puts flags and arguments together.
func (c *logCommand) understand(args []string) (err error) {
	q := &c.query
	for _, k := range c.kinds {
		if eventlog.New(eventlog.Kind(k)) == nil {
			return fmt.Errorf("--kind %s: want session, message, envelope, attempt, result, trace or loss", k)
		}
		q.Kinds = append(q.Kinds, eventlog.Kind(k))
	}
	if len(q.Kinds) == 0 && c.trace == "" { // stages are many, and for who asks for them
		q.Kinds = slices.DeleteFunc(eventlog.Kinds(), func(k eventlog.Kind) bool { return k == eventlog.KindTrace })
	}
	if words := append(eventlog.Results(), eventlog.OK, eventlog.Temp, eventlog.Perm); q.Result != "" && !slices.Contains(words, q.Result) {
		return fmt.Errorf("--result %s: want one of %s", q.Result, strings.Join(words, ", "))
	}
	if q.Newest < 0 || q.Newest > maxNewest {
		return fmt.Errorf("--number %d: want 0 to %d", q.Newest, maxNewest)
	}
	if c.trace != "" {
		if err := c.restrict(wordID, c.trace); err != nil {
			return err
		}
	}
	for _, a := range args {
		if err := c.narrow(a); err != nil {
			return err
		}
	}
	q.Domain = strings.TrimPrefix(q.Domain, "@")
	now := c.now().UTC()
	if c.local {
		now = now.In(time.Local)
	}
	if q.Since, err = parseWhen(c.since, now); err != nil {
		return fmt.Errorf("--since: %w", err)
	}
	if q.Until, err = parseWhen(c.until, now); err != nil {
		return fmt.Errorf("--until: %w", err)
	}
	if !q.Until.IsZero() && (c.follow || !q.Since.Before(q.Until)) {
		if c.follow {
			return errors.New("--follow does not end, so there can be no --until")
		}
		return fmt.Errorf("--until %s is not after --since %s", c.until, c.since)
	}
	free := len(c.open) == 0 && q.Address == "" && q.Domain == "" && q.ID == "" && q.Result == "" && q.Text == "" && q.Since.IsZero() && q.Until.IsZero()
	switch {
	case c.counted || !free:
	case c.follow:
		q.Newest = followFirst
	default:
		q.Newest = defaultEvents
	}
	return nil
}

// print prints what is there, and then what comes. The mark is made first, so that
// nothing is left out between, or comes twice.
func (c *logCommand) print(ctx context.Context, cmd *cobra.Command, db *eventdb.DB, p *eventPrinter) error {
	if !c.follow {
		return db.Select(ctx, c.query, p.print)
	}
	mark, err := db.Mark(ctx)
	if err != nil {
		return err
	}
	c.query.Upto = mark
	if err := errors.Join(db.Select(ctx, c.query, p.print), p.flush()); err != nil {
		return err
	}
	p.printed++ // that nothing comes is no failure
	down := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.interval):
		}
		err := db.After(ctx, c.query, mark, p.print)
		if err := p.flush(); err != nil {
			return err
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !down:
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "the event log cannot be read at the moment: %v\n", err)
		case err == nil && down:
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "the event log is read again")
		}
		down = err != nil
	}
}
