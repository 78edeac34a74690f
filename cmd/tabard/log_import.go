package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/eventdb"
	"tabard/internal/config"
	"tabard/internal/eventlog"
	"tabard/internal/eventlog/textlog"
)

// logImport is `tabard log import`.
type logImport struct {
	g            *globals
	format, zone string
	node         string
	year         int
	strict       bool
	now          time.Time
	opts         textlog.Options
}

func newLogImport(g *globals) *cobra.Command {
	c := &logImport{g: g}
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Add text logs of Tabard, OpenSMTPD and Postfix to the event log (- is standard input)",
		Long: `Import reads text logs, and adds what they tell of to the event log (log sql in the
configuration): sessions, messages, envelopes, attempts and results. Files may be packed by
gzip, bzip2 or zstd. They are read in the order in which they begin, so mail.log* will do.

Lines may be Tabard's own (text or JSON), OpenSMTPD's or Postfix', also mixed, with the time
and host that syslog puts before them (Nov 28 16:00:00 or 2026-11-28T16:00:00+01:00). Each is
taken for what it looks like. --format takes lines under a name that is not known (Postfix'
syslog_name) for those of a format, and leaves out those of the others. Lines of other
programs are passed over. Lines that are not understood are counted, the first of them told;
with --strict the exit code is 65 if there are any, though all others are stored. A last
line without an end is left for the next import. Of a file that is broken, what comes before
is stored; the exit code is 65.

Importing a file again, or another part of the same log, adds nothing that is there already.
A message whose begin is in another file is known by its id only, so import the files of
one log together. Do not import what the server has written itself by log sql: it would be
there twice.

Times without a zone are in --timezone, this machine's by default. Dates without a year are
in the last year in which no line is later than the file's time of change; --year gives the
year of the first line of each file.`,
		Args: cobra.MinimumNArgs(1),
		RunE: c.run,
	}
	f := cmd.Flags()
	f.StringVar(&c.format, "format", "", "the `format` of the files: tabard, opensmtpd or postfix")
	f.StringVar(&c.zone, "timezone", "", "the `zone` of times that name none, such as Europe/Berlin or UTC")
	f.IntVar(&c.year, "year", 0, "the `year` of the first line of each file, where lines name none")
	f.StringVar(&c.node, "node", "", "the `host` of lines that name none (default: this machine)")
	f.BoolVar(&c.strict, "strict", false, "fail if a line is not understood")
	return cmd
}

func (c *logImport) run(cmd *cobra.Command, args []string) error {
	if err := c.understand(); err != nil {
		return withCode(exUsage, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	files, err := c.open(cmd, args)
	for _, f := range files {
		defer func() { _ = f.in.Close() }()
	}
	if err != nil {
		return err
	}
	return c.g.withEvents(ctx, func(cfg *config.Config, db *eventdb.DB) error {
		return c.importAll(ctx, cmd, files, &eventSink{ctx: ctx, db: db, keep: cfg.LogSQL.Keep, now: c.now})
	})
}

const firstYear, lastYear = 1980, 9999

func (c *logImport) understand() (err error) {
	c.now = time.Now()
	c.opts = textlog.Options{Format: textlog.Format(c.format), Zone: time.Local, Node: c.node}
	if c.format != "" && !slices.Contains(textlog.Formats(), c.opts.Format) {
		return fmt.Errorf("--format %s: want tabard, opensmtpd or postfix", c.format)
	}
	if c.year != 0 && (c.year < firstYear || c.year > lastYear) {
		return fmt.Errorf("--year %d: want %d to %d", c.year, firstYear, lastYear)
	}
	if c.zone != "" {
		if c.opts.Zone, err = time.LoadLocation(c.zone); err != nil {
			return fmt.Errorf("--timezone %s: there is no such zone", c.zone)
		}
	}
	if c.node == "" {
		if c.opts.Node, err = os.Hostname(); err != nil {
			return fmt.Errorf("this machine's name is not known: %w; use --node", err)
		}
	}
	return nil
}

// logFile is a file to import.
type logFile struct {
	name   string
	in     io.ReadCloser
	size   int64     // 0: unknown
	latest time.Time // no line is later
	began  time.Time
}

// open opens all files before anything is stored, and puts them in order.
func (c *logImport) open(cmd *cobra.Command, names []string) (files []*logFile, err error) {
	ordered := true
	for _, name := range names {
		f := &logFile{name: name, latest: c.now}
		if f.in, f.size, err = openInput(cmd, name); err != nil {
			return files, err
		}
		files = append(files, f)
		again, err := c.peek(cmd, f)
		if err != nil {
			return files, withCode(exIOErr, fmt.Errorf("%s: %w", name, err))
		}
		ordered = ordered && again
	}
	if ordered {
		slices.SortStableFunc(files, func(a, b *logFile) int { return a.began.Compare(b.began) })
	}
	return files, nil
}

// peek finds out when a file begins and ends, if it can be read twice; standard input may
// be one, too.
func (c *logImport) peek(cmd *cobra.Command, f *logFile) (again bool, err error) {
	file, ok := f.in.(*os.File)
	if f.name == "-" {
		file, ok = cmd.InOrStdin().(*os.File)
	}
	if !ok {
		return false, nil
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	if t := info.ModTime(); t.Before(f.latest) {
		f.latest = t
	}
	start, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, err
	}
	f.size = info.Size() - start
	f.began = textlog.Began(file, c.opts, f.latest, c.year)
	_, err = file.Seek(start, io.SeekStart)
	return true, err
}

// eventSink stores events in batches.
type eventSink struct {
	ctx   context.Context //nolint:containedctx // of the one command
	db    *eventdb.DB
	keep  time.Duration
	now   time.Time
	batch eventlog.Batch
	done  imported
}

// imported is what came of an import.
type imported struct {
	Lines   int64 `json:"lines"`
	Events  int64 `json:"events"`
	Added   int64 `json:"added"` // were not there before
	Others  int64 `json:"other_lines"`
	Unknown int64 `json:"unknown_lines"`
	old     int64 // events that will not be kept
}

func (s *eventSink) take(e eventlog.Event) error {
	if s.keep > 0 && e.Common().At.Before(s.now.Add(-s.keep)) {
		s.done.old++
	}
	if s.batch.Add(e); s.batch.Len() >= eventlog.MaxBatch {
		return s.store()
	}
	return nil
}

func (s *eventSink) store() error {
	n := s.batch.Len()
	if n == 0 {
		return nil
	}
	fresh, err := s.db.Insert(s.ctx, &s.batch)
	if err != nil {
		return err
	}
	s.done.Added += fresh
	s.done.Events += int64(n)
	s.batch = eventlog.Batch{}
	return nil
}

// mostTold is how many lines that are not understood are told.
const mostTold = 10

func (c *logImport) importAll(ctx context.Context, cmd *cobra.Command, files []*logFile, sink *eventSink) error {
	r := textlog.New(c.opts, sink.take)
	bar := newProgressLine(cmd.ErrOrStderr())
	var size, read int64
	var broken []error
	for _, f := range files {
		size += f.size
	}
	for _, f := range files {
		counted := &countingReader{r: f.in}
		told := func(n int64, err error) error {
			if r.Stats().Unknown <= mostTold {
				bar.clear()
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s:%d: %v\n", f.name, n, err)
			}
			return nil
		}
		watch := readerFunc(func(p []byte) (int, error) {
			bar.show(logImportLine(r.Stats().Lines, sink.done.Events, read+counted.n.Load(), size))
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			return counted.Read(p)
		})
		r.Begin(f.latest, c.year)
		err := r.ReadAll(watch, told)
		read += counted.n.Load()
		switch {
		case err == nil:
		case ctx.Err() == nil && errors.Is(err, textlog.ErrInput):
			broken = append(broken, fmt.Errorf("%s: %w", f.name, err))
		default:
			bar.clear()
			return c.failed(ctx, err)
		}
	}
	err := r.Finish()
	if err == nil {
		err = sink.store()
	}
	bar.clear()
	if err != nil {
		return c.failed(ctx, err)
	}
	s := r.Stats()
	sink.done.Lines, sink.done.Others, sink.done.Unknown = s.Lines, s.Others, s.Unknown
	err = c.report(cmd, &sink.done)
	if len(broken) > 0 {
		err = withCode(exDataErr, errors.Join(append(broken, err)...))
	}
	return err
}

// failed is why an import ended early. What was stored stays; it is not stored twice.
func (c *logImport) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted: a part is stored; import again to add the rest")
	}
	return withCode(exTempFail, err)
}

// report prints what was done.
func (c *logImport) report(cmd *cobra.Command, done *imported) error {
	err := error(nil)
	if c.g.json {
		err = printJSON(cmd.OutOrStdout(), done)
	} else {
		text := fmt.Sprintf("%d lines, %d events, %d of them added", done.Lines, done.Events, done.Added)
		if done.Others > 0 {
			text += fmt.Sprintf("; %d lines are of other programs", done.Others)
		}
		if done.Unknown > 0 {
			text += fmt.Sprintf("; %d lines are not understood", done.Unknown)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	}
	if err != nil {
		return err
	}
	if done.old > 0 {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%d events are older than `keep` in `log sql`: the server deletes them within minutes\n", done.old)
	}
	if c.strict && done.Unknown > 0 {
		return exitf(exDataErr, "%d lines are not understood", done.Unknown)
	}
	return nil
}

// logImportLine is what the terminal shows.
func logImportLine(lines, events, read, size int64) string {
	text := fmt.Sprintf("%d lines, %d events", lines, events)
	if size > 0 {
		text = strings.Join([]string{barOf(float64(read) / float64(size)), text}, " ")
	}
	return text
}

// readerFunc is a function that reads.
type readerFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
