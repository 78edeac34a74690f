package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/eventdb"
	"tabard/internal/config"
	"tabard/internal/eventlog"
)

// logCommand is `tabard log`.
type logCommand struct {
	g                    *globals
	query                eventdb.Query
	kinds                []string
	since, until, trace  string
	follow               bool
	now                  func() time.Time
	interval, overlapped time.Duration
}

func newLog(g *globals) *cobra.Command {
	c := &logCommand{g: g, now: time.Now, interval: followEvery, overlapped: followWindow}
	cmd := &cobra.Command{
		Use:   "log [WHAT]...",
		Short: "Search the event log: sessions, messages, attempts and their results",
		Long: `Log prints events of the event log (log sql in the configuration), one on a line, the
oldest first. WHAT narrows them down, by what it looks like:

  user@example.org      mail from or to an address, before or after aliases
  @example.org          mail from or to a domain
  0192f3a5c1d2e3f4      a session or a message, and all that belongs to it; also MESSAGE.N
  <id@example.org>      a message, by its field Message-ID
  anything else         events in which the text occurs

Several of them, and flags, have to hold together. Without any the newest 100 events are
printed. --since and --until take a time before now (90s, 30m, 2h, 7d), a day or a time
(2026-11-28, "2026-11-28 14:30", or with a zone as in 2026-11-28T14:30:00+01:00). Times
are in UTC, where they do not say otherwise, as in the log itself.

Results are delivered, relayed, expanded, failed, expired, removed and rejected (a command
of a client was refused); outcomes of attempts ok, temp and perm. --trace ID shows all of
one message, with the time since its beginning. --json prints an object on each line.`,
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
	f.StringVar(&c.trace, "trace", "", "all of one message or session, by its `ID`")
	cmd.AddCommand(newLogImport(g))
	return cmd
}

const (
	defaultEvents = 100
	followFirst   = 10               // events before those to come
	followEvery   = time.Second      // between two looks
	followWindow  = 90 * time.Second // how late an event may come into the database
	maxNewest     = 1_000_000
)

func (c *logCommand) run(cmd *cobra.Command, args []string) error {
	if err := c.understand(args); err != nil {
		return withCode(exUsage, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return c.g.withEvents(ctx, func(_ *config.Config, db *eventdb.DB) error {
		p := &eventPrinter{out: cmd.OutOrStdout(), json: c.g.json, trace: c.trace != ""}
		err := c.print(ctx, cmd, db, p)
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
		args = append(args, c.trace)
	}
	for _, a := range args {
		if err := c.narrow(a); err != nil {
			return err
		}
	}
	q.Domain = strings.TrimPrefix(q.Domain, "@")
	now := c.now()
	if q.Since, err = parseWhen(c.since, now); err != nil {
		return fmt.Errorf("--since: %w", err)
	}
	if q.Until, err = parseWhen(c.until, now); err != nil {
		return fmt.Errorf("--until: %w", err)
	}
	free := q.Address == "" && q.Domain == "" && q.ID == "" && q.Result == "" && q.Text == "" && q.Since.IsZero() && q.Until.IsZero()
	switch {
	case q.Newest != 0 || !free:
	case c.follow:
		q.Newest = followFirst
	default:
		q.Newest = defaultEvents
	}
	return nil
}

var idForm = regexp.MustCompile(`^(<[^<>\s]+>|[0-9a-fA-F]{8,16}(\.[0-9]+)?)$`)

// narrow takes an argument for what it looks like.
func (c *logCommand) narrow(arg string) error {
	to, what := &c.query.Text, "text"
	switch {
	case arg == "":
		return errors.New("an empty argument says nothing")
	case idForm.MatchString(arg), arg == c.trace:
		to, what = &c.query.ID, "id"
	case arg[0] == '@':
		to, what = &c.query.Domain, "domain"
	case strings.Contains(arg, "@") && !strings.ContainsAny(arg, " \t"):
		to, what = &c.query.Address, "address"
	}
	if *to != "" {
		return fmt.Errorf("%s and %s: there can be one %s only", *to, arg, what)
	}
	*to = arg
	return nil
}

// whenForms are those of times, in UTC where they name no zone.
func whenForms() []string {
	return []string{time.RFC3339, "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"}
}

// parseWhen reads a time, or a span before now; without text it is zero.
func parseWhen(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range whenForms() {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	if n, ok := strings.CutSuffix(text, "d"); ok {
		if days, err := strconv.ParseUint(n, 10, 16); err == nil {
			return now.Add(-time.Duration(days) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf(`%q; want a span such as 30m, 2h or 7d, or a time such as 2026-11-28 or "2026-11-28 14:30"`, text)
}

// print prints what is there, and then what comes.
func (c *logCommand) print(ctx context.Context, cmd *cobra.Command, db *eventdb.DB, p *eventPrinter) error {
	seen := map[[2]int64]bool{}
	once := func(e eventlog.Event) error {
		h := e.Common()
		name := [2]int64{h.At.UnixMilli(), h.Key}
		if c.follow && seen[name] {
			return nil
		}
		if c.follow {
			seen[name] = true
		}
		return p.print(e)
	}
	began := c.now()
	if err := db.Select(ctx, c.query, once); err != nil || !c.follow {
		return err
	}
	p.printed++ // that nothing comes is no failure
	next := c.query
	next.Newest = 0
	down := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.interval):
		}
		// What came late is found within the window; all from before has been printed, or
		// was left out by --number.
		edge := c.now().Add(-c.overlapped)
		if next.Since = edge; c.query.Newest > 0 && began.After(edge) {
			next.Since = began
		}
		err := db.Select(ctx, next, once)
		if err != nil && !down && ctx.Err() == nil {
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "the event log cannot be read at the moment: %v\n", err)
		}
		down = err != nil
		for name := range seen {
			if name[0] < edge.UnixMilli() {
				delete(seen, name)
			}
		}
	}
}
