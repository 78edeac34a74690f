package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/control"
	"tabard/internal/eventlog"
	"tabard/internal/privsep"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/queue"
	"tabard/table/cache"
)

// status is what `tabard status --json` prints.
type status struct {
	privsep.Status
	Tables     []lookup.TableInfo `json:"tables"`
	TableFault string             `json:"tables_error,omitempty"` // why Tables is empty
	EventLog   *eventlog.Status   `json:"event_log,omitempty"`    // nil: there is none, or lookup is away
	QueueFault string             `json:"queue_error,omitempty"`  // why mail is neither accepted nor delivered
}

func newStatus(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the running server, its processes and its tables do",
		Long: `Status prints the configuration in force; the processes and what confines them; and
the tables. Of a table it shows the services that it is used for, whether its source
answers, whether the source tells of changes, how many questions the table was asked,
how many of them its source failed, and of its cache the answers known, their memory of
what they may take, and the part of the questions that it answered. Tables in memory
have no cache. What is wrong follows, in a line each. Counts begin with the lookup
process, which a reload replaces.

SOURCE is up, down, or "not asked" before the first question. CHANGES is told (a change
is in force at once), pending (a watch on the source is being begun), lost (it is tried
again; meanwhile answers are believed for a short time) or never (this source does not
tell). Last comes the event log, if there is one: how many events each process had written,
kept waiting and lost, as it told lookup last.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.dialControl()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
			defer cancel()
			st := status{Tables: []lookup.TableInfo{}}
			if st.Status, err = c.Status(ctx); err != nil {
				return withCode(exUnavailable, err)
			}
			// That lookup is away is part of the state, not a failure to show it.
			if tables, err := tableStatus(ctx, c); err != nil {
				st.TableFault = err.Error()
			} else {
				st.Tables = tables
			}
			if events, err := eventStatus(ctx, c); err == nil && events.Table != "" {
				st.EventLog = &events
			}
			st.QueueFault = queueFault(ctx, c)
			return g.printStatus(cmd.OutOrStdout(), st, time.Now())
		},
	}
}

// statusTimeout bounds what a lookup process that hangs keeps the rest waiting.
const statusTimeout = 10 * time.Second

func tableStatus(ctx context.Context, c *control.Client) ([]lookup.TableInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	a, end, err := lookupOf(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	return a.Tables(ctx)
}

// eventStatus asks lookup how the event log does.
func eventStatus(ctx context.Context, c *control.Client) (eventlog.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	conn, err := c.Connect(ctx, procLookup)
	if err != nil {
		return eventlog.Status{}, err
	}
	client := rpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	return eventlog.ReadStatus(ctx, client)
}

// printEvents tells of the event log, if there is one.
func printEvents(out io.Writer, e *eventlog.Status) error {
	if e == nil {
		return nil
	}
	_, _ = fmt.Fprintf(out, "\nevent log in table %s", e.Table)
	for _, p := range e.Processes {
		_, _ = fmt.Fprintf(out, "; %s: %d written, %d waiting, %d lost", p.Process, p.Written, p.Waiting, p.Lost)
	}
	if e.Fault != "" && e.Since != nil {
		_, _ = fmt.Fprintf(out, "\nevent log: not written since %s: %s", e.Since.UTC().Format(time.RFC3339), e.Fault)
	}
	_, err := fmt.Fprintln(out)
	return err
}

func (g *globals) printStatus(out io.Writer, st status, now time.Time) error {
	if g.json {
		return printJSON(out, st)
	}
	if c := st.Config; c != nil {
		_, _ = fmt.Fprintf(out, "configuration: %s, loaded %s, hash %s\n", c.Source, c.Loaded.Format(time.RFC3339), c.Hash)
		if c.Fault != "" {
			_, _ = fmt.Fprintf(out, "the last attempt to replace it failed: %s\n", strings.ReplaceAll(c.Fault, "\n", "\n  "))
		}
		_, _ = fmt.Fprintln(out)
	}
	var rows [][]string
	for _, p := range st.Processes {
		rows = append(rows, []string{p.Name, strconv.Itoa(p.PID), string(p.State), now.Sub(p.Since).Round(time.Second).String(), strconv.Itoa(p.Restarts), dash(layerList(p.Layers))})
	}
	if err := printColumns(out, []string{"PROCESS", "PID", "STATE", "UPTIME", "RESTARTS", "CONFINED BY"}, rows); err != nil {
		return err
	}
	if gaps := unconfined(st.Processes); len(gaps) > 0 {
		_, _ = fmt.Fprintf(out, "\n%s\n", strings.Join(gaps, "\n"))
	}
	if st.QueueFault != "" {
		_, _ = fmt.Fprintf(out, "\nthe queue is out of order: %s\n", st.QueueFault)
	}
	if err := printTables(out, st); err != nil {
		return err
	}
	return printEvents(out, st.EventLog)
}

// queueFault asks the queue why it takes nothing. One that is away is among the
// processes.
func queueFault(ctx context.Context, c *control.Client) string {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	conn, err := c.Connect(ctx, procQueue)
	if err != nil {
		return ""
	}
	client := rpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	st, err := queue.NewRemoteAdmin(client).Stats(ctx)
	if err != nil {
		return ""
	}
	return st.Fault
}

// layerList names the layers: first those that hold, then those that do not.
func layerList(layers []privsep.Layer) string {
	var held, missing []string
	for _, l := range layers {
		switch {
		case l.Held:
			held = append(held, l.Name)
		case !l.Waived:
			missing = append(missing, "no "+l.Name)
		}
	}
	return strings.Join(append(held, missing...), ", ")
}

// unconfined says why layers do not hold, each reason once.
func unconfined(processes []privsep.ProcessStatus) []string {
	var order []string
	names := make(map[string][]string)
	for _, p := range processes {
		for _, l := range p.Layers {
			why := "without " + l.Name + ": " + l.Reason
			if l.Held {
				continue
			}
			if names[why] == nil {
				order = append(order, why)
			}
			names[why] = append(names[why], p.Name)
		}
	}
	for i, why := range order {
		order[i] = strings.Join(names[why], ", ") + " " + why
	}
	return order
}

func printTables(out io.Writer, st status) error {
	if st.TableFault != "" {
		_, err := fmt.Fprintf(out, "\nhow the tables do cannot be said: %s\n", st.TableFault)
		return err
	}
	if len(st.Tables) == 0 {
		return nil
	}
	var rows [][]string
	for _, t := range st.Tables {
		rows = append(rows, tableRow(t))
	}
	_, _ = fmt.Fprintln(out)
	head := []string{"TABLE", "KIND", "USED FOR", "SOURCE", "CHANGES", "QUESTIONS", "ERRORS", "KNOWN", "MEMORY", "HITS"}
	if err := printColumns(out, head, rows); err != nil {
		return err
	}
	var faults []string
	for _, t := range st.Tables {
		faults = append(faults, tableFaults(t)...)
	}
	if len(faults) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\n%s\n", strings.Join(faults, "\n"))
	return err
}

func tableRow(t lookup.TableInfo) []string {
	source := string(t.Source.State)
	if t.Source.State == lookup.SourceUnasked {
		source = "not asked"
	}
	row := []string{t.Name, t.Kind, dash(strings.Join(t.Services, ", ")), source}
	counts := []string{strconv.FormatInt(t.Questions, 10), strconv.FormatInt(t.Source.Errors, 10)}
	c := t.Cache
	if c == nil {
		return append(append(append(row, "-"), counts...), "-", "-", "-")
	}
	rate := "-"
	if c.Hits+c.Stale+c.Misses > 0 {
		rate = fmt.Sprintf("%.1f%%", 100*c.HitRate)
	}
	return append(append(append(row, string(c.Watch.State)), counts...),
		strconv.Itoa(c.Entries), fmt.Sprintf("%s of %s", size(c.Bytes), size(c.Limit)), rate)
}

// size is a number of bytes in KiB or MiB.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%dK", (n+1023)>>10)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<20)), ".0") + "M"
}

// tableFaults says what is wrong with a table now.
func tableFaults(t lookup.TableInfo) []string {
	var faults []string
	if s := t.Source; s.State == lookup.SourceDown {
		faults = append(faults, fmt.Sprintf("table %s: down since %s: %s", t.Name, s.Since.UTC().Format(time.RFC3339), s.LastError))
	}
	if c := t.Cache; c != nil && (c.Watch.State == cache.WatchLost || c.Watch.State == cache.WatchPending && c.Watch.Error != "") {
		faults = append(faults, fmt.Sprintf("table %s: changes are not told since %s: %s", t.Name, c.Watch.Since.UTC().Format(time.RFC3339), c.Watch.Error))
	}
	return faults
}

// printColumns writes rows under a heading. What cannot be written has the code exIOErr.
func printColumns(out io.Writer, head []string, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, r := range append([][]string{head}, rows...) {
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return withCode(exIOErr, w.Flush())
}
