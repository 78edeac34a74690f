package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"tabard/internal/address"
	"tabard/queue"
)

// queuePage is how many envelopes are asked for at a time.
const queuePage = 500

func (g *globals) queueList() *cobra.Command {
	var what filterFlags
	var by []string
	limit, mailq, sort := 0, false, ""
	cmd := &cobra.Command{
		Use:   "ls [MESSAGE|ENVELOPE...]",
		Short: "List or count the envelopes that wait",
		Long: `Ls lists envelopes, one for each recipient, in the order in which they came, or with
--sort in that of ` + sortNames() + `: the least first, with - before
the word the most. A sorted listing has 1000 lines if --limit does not say otherwise.

` + filterHelp + `

With --by it counts them by the values of up to four fields, the most frequent first:
` + strings.Join(fieldNames(), ", ") + `.`,
		Example: `  tabard queue ls --domain example.org --older 4h
  tabard queue ls --sort -size --limit 20
  tabard queue ls --by destination,error
  tabard queue ls --state deferred --by domain --limit 10`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := what.filter(time.Now())
			if err != nil {
				return err
			}
			if f.IDs, err = parseIDs(args); err != nil {
				return err
			}
			if limit < 0 {
				return exitf(exUsage, "--limit %d: want a positive number", limit)
			}
			order, err := parseOrder(sort)
			if err != nil {
				return err
			}
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				if sort != "" {
					return g.printSorted(ctx, cmd, q, f, order, limit)
				}
				if len(by) > 0 {
					return g.printTally(ctx, cmd, q, f, by, limit)
				}
				if mailq && !g.json {
					return printMailq(ctx, cmd.OutOrStdout(), q, f, limit)
				}
				return g.printListing(ctx, cmd.OutOrStdout(), q, f, limit)
			})
		},
	}
	what.add(cmd)
	cmd.Flags().StringSliceVar(&by, "by", nil, "count by the values of `fields`")
	cmd.Flags().BoolVar(&mailq, "mailq", false, "print OpenSMTPD's fields in its order, as mailq does")
	cmd.Flags().StringVar(&sort, "sort", "", "sort by a `key`; -key the other way round")
	cmd.MarkFlagsMutuallyExclusive("by", "mailq", "sort")
	cmd.Flags().IntVar(&limit, "limit", 0, "print at most so `many` lines (default all; with --by and --sort 1000)")
	return cmd
}

func fieldNames() []string {
	var names []string
	for _, f := range queue.Fields() {
		names = append(names, string(f))
	}
	return names
}

// parseIDs checks the ids that are arguments.
func parseIDs(args []string) ([]string, error) {
	if err := checkIDs(args); err != nil {
		return nil, err
	}
	if len(args) > queue.MaxFilterIDs {
		return nil, exitf(exUsage, "%d ids; %d are taken at once", len(args), queue.MaxFilterIDs)
	}
	return args, nil
}

// checkIDs refuses what is no id of a message or of an envelope.
func checkIDs(args []string) error {
	for _, a := range args {
		if _, _, err := queue.ParseID(a); err != nil {
			return withCode(exUsage, err)
		}
	}
	return nil
}

// eachListed calls f with page after page of what a filter chooses.
func eachListed(ctx context.Context, q queue.Admin, f queue.Filter, limit int, do func([]queue.Listed) error) error {
	for after := (queue.EnvelopeID{}); ; {
		size := queuePage
		if limit > 0 {
			size = min(size, limit)
		}
		page, err := q.Find(ctx, f, after, size)
		if err != nil {
			return err
		}
		if len(page.List) > 0 {
			if err := do(page.List); err != nil {
				return err
			}
			after = page.List[len(page.List)-1].Envelope.ID
		}
		if !page.More || len(page.List) == limit {
			return nil
		}
		limit -= min(limit, len(page.List))
	}
}

// printListing prints page by page, so that a large queue does not fill the memory.
func (g *globals) printListing(ctx context.Context, w io.Writer, q queue.Admin, f queue.Filter, limit int) error {
	return g.printPages(w, func(do func([]queue.Listed) error) error { return eachListed(ctx, q, f, limit, do) })
}

// printPages prints the pages that each calls its function with.
func (g *globals) printPages(w io.Writer, each func(func([]queue.Listed) error) error) error {
	out := bufio.NewWriter(w)
	var err error
	if g.json {
		list := &jsonList{w: out}
		err = each(func(page []queue.Listed) error {
			for i := range page {
				if err := list.add(&page[i]); err != nil {
					return err
				}
			}
			return nil
		})
		list.end()
	} else {
		columns := &columnWriter{w: out}
		rows := [][]string{queueHead()}
		err = each(func(page []queue.Listed) error {
			for i := range page {
				rows = append(rows, queueRow(page[i], time.Now()))
			}
			columns.print(rows)
			rows = rows[:0]
			return withCode(exIOErr, out.Flush())
		})
		columns.print(rows) // the head, if nothing came below it
	}
	if flushed := out.Flush(); err == nil {
		err = withCode(exIOErr, flushed)
	}
	return err
}

// printMailq prints what programs made for OpenSMTPD's mailq read.
func printMailq(ctx context.Context, w io.Writer, q queue.Admin, f queue.Filter, limit int) error {
	out := bufio.NewWriter(w)
	err := eachListed(ctx, q, f, limit, func(page []queue.Listed) error {
		for i := range page {
			_, _ = fmt.Fprintln(out, mailqLine(&page[i], time.Now()))
		}
		return withCode(exIOErr, out.Flush())
	})
	return err
}

func queueHead() []string {
	return []string{"ENVELOPE", "AGE", "SIZE", "FROM", "TO", "ACTION", "TRIES", "NEXT", "LAST ERROR"}
}

func queueRow(l queue.Listed, now time.Time) []string {
	e := l.Envelope
	next := "due"
	switch {
	case l.InFlight:
		next = "in flight"
	case e.Held:
		next = "held"
	case e.Next.After(now):
		next = e.Next.Sub(now).Round(time.Second).String()
	}
	last := dash(e.LastError)
	if e.Held {
		last = e.HeldFor
	}
	return []string{
		e.ID.String(), max(0, now.Sub(e.Created)).Round(time.Second).String(), strconv.FormatInt(l.Size, 10), "<" + l.Sender + ">", "<" + e.Address + ">",
		dash(e.Action), strconv.Itoa(e.Attempts), next, address.OneLine(last, 200),
	}
}

// jsonList writes a JSON array element by element, as printJSON would.
type jsonList struct {
	w     *bufio.Writer
	begun bool
}

func (l *jsonList) add(v any) error {
	text, err := json.MarshalIndent(v, "  ", "  ")
	if err != nil {
		return err
	}
	before := ",\n  "
	if !l.begun {
		before, l.begun = "[\n  ", true
	}
	_, _ = l.w.WriteString(before)
	_, err = l.w.Write(text)
	return err
}

func (l *jsonList) end() {
	text := "\n]\n"
	if !l.begun {
		text = "[]\n"
	}
	_, _ = l.w.WriteString(text)
}

// columnWriter prints rows in columns as they come; a column grows with what it has
// to hold.
type columnWriter struct {
	w      io.Writer
	widths []int
}

func (c *columnWriter) print(rows [][]string) {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(c.widths) {
				c.widths = append(c.widths, 0)
			}
			c.widths[i] = max(c.widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", c.widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		_, _ = fmt.Fprintln(c.w, line.String())
	}
}

// printTally prints counts.
func (g *globals) printTally(ctx context.Context, cmd *cobra.Command, q queue.Admin, f queue.Filter, by []string, limit int) error {
	var fields []queue.Field
	head := []string{"ENVELOPES", "OLDEST"}
	for _, name := range by {
		fields = append(fields, queue.Field(name))
		head = append(head, strings.ToUpper(name))
	}
	if limit == 0 {
		limit = 1000
	}
	t, err := q.Count(ctx, f, fields, limit)
	if err != nil {
		return filterError(err)
	}
	objects := make([]map[string]any, len(t.Groups))
	rows := make([][]string, len(t.Groups))
	var shown int64
	for i, group := range t.Groups {
		shown += group.Envelopes
		objects[i] = map[string]any{"envelopes": group.Envelopes, "oldest": group.Oldest}
		rows[i] = []string{strconv.FormatInt(group.Envelopes, 10), time.Since(group.Oldest).Round(time.Second).String()}
		for j, v := range group.Values {
			objects[i][by[j]] = v
			rows[i] = append(rows[i], dash(address.OneLine(v, 200)))
		}
	}
	if err := g.printList(cmd, objects, head, rows); err != nil {
		return err
	}
	if t.Partial {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "the queue is damaged: only what can be read is counted")
	}
	if left := t.All - int64(len(t.Groups)); left > 0 {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%d more groups with %d envelopes are not shown\n", left, t.Envelopes-shown)
	}
	return nil
}
