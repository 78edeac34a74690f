package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/rpc"
	"tabard/queue"
)

// exporting is an export that is being made.
type exporting struct {
	q       queue.Admin
	id      string
	remove  bool
	archive *archiveWriter
	current queue.Message // whose envelopes are collected
	list    []queue.Portable
	refused []queue.Refusal
	failed  bool // a message was left out that should not have been
	bar     *progressLine
	all     int64
}

// exported is what an export says at its end.
type exported struct {
	Export    string          `json:"export"`
	Messages  int             `json:"messages"`
	Envelopes int             `json:"envelopes"`
	Removed   int             `json:"removed"`
	Left      []queue.Refusal `json:"left"` // what is not in the file, or is there still
}

func (g *globals) queueExport() *cobra.Command {
	var what filterFlags
	var all, remove bool
	cmd := &cobra.Command{
		Use:   "export FILE|- [MESSAGE|ENVELOPE...]",
		Short: "Write envelopes with their messages to a file, for another queue",
		Long: `Export writes envelopes, with all that the queue knows of them, and their messages to a new
tar file, or with - to the standard output; "tabard queue import" puts them into another
queue. Name envelopes, or give filters, or --all.

With --remove they are moved: first they are held, so that they are not tried meanwhile,
and when the file is safely on the disk those that are in it are removed. What is being
delivered at the moment is left out and told of. When the export fails, nothing is
removed, and what it held is as before.

The file has the text of the mail: keep it as you would keep the queue.

` + filterHelp,
		Example: `  tabard queue export --all --remove queue.tar
  tabard queue export --domain example.org - | ssh new.example.org tabard queue import -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := what.filter(time.Now())
			if err != nil {
				return err
			}
			if f.IDs, err = parseIDs(args[1:]); err != nil {
				return err
			}
			switch {
			case all && (len(f.IDs) > 0 || !what.none(cmd)):
				return exitf(exUsage, "--all, and ids or filters: say one of both")
			case !all && len(f.IDs) == 0 && what.none(cmd):
				return exitf(exUsage, "say which: ids, filters or --all")
			case remove && args[0] == "-":
				return exitf(exUsage, "--remove needs a file: nobody knows what becomes of the standard output")
			}
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				return g.export(ctx, cmd, q, f, args[0], remove)
			})
		},
	}
	what.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all envelopes; needed when nothing else chooses")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove what is in the file from the queue")
	return cmd
}

// export writes what a filter chooses to a file.
func (g *globals) export(ctx context.Context, cmd *cobra.Command, q queue.Admin, f queue.Filter, path string, remove bool) error {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	x := &exporting{q: q, id: hex.EncodeToString(id[:]), remove: remove, bar: newProgressLine(cmd.ErrOrStderr())}
	var err error
	out := exported{Export: x.id}
	if path == "-" {
		err = x.write(ctx, cmd.OutOrStdout(), f)
	} else {
		err = x.file(ctx, path, f)
	}
	if err != nil {
		x.bar.clear()
		return errors.Join(filterError(err), x.release(ctx))
	}
	if remove {
		out.Removed, err = x.removeExported(ctx, path)
	}
	x.bar.clear()
	out.Messages, out.Envelopes, out.Left = x.archive.end.Messages, x.archive.end.Envelopes, x.refused
	return errors.Join(g.printExported(cmd, &out, path), err, x.failure(&out))
}

// file writes a new file, and has it durable.
func (x *exporting) file(ctx context.Context, path string, f queue.Filter) error {
	out, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return withCode(exCantCreat, err)
	}
	err = x.write(ctx, out, f)
	if err == nil {
		err = withCode(exIOErr, out.Sync())
	}
	err = errors.Join(err, withCode(exIOErr, out.Close()))
	if err == nil {
		err = withCode(exIOErr, syncDir(filepath.Dir(path)))
	}
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// write writes all that the filter chooses, and is there already.
func (x *exporting) write(ctx context.Context, w io.Writer, f queue.Filter) error {
	t, err := x.q.Count(ctx, f, nil, 1)
	if err != nil {
		return err
	}
	x.all, f.Until = t.Envelopes, t.Until
	host, _ := os.Hostname() // for people only
	out := bufio.NewWriterSize(w, 64<<10)
	if x.archive, err = newArchive(out, archiveHead{Export: x.id, Host: host, Created: time.Now(), Moved: x.remove}); err != nil {
		return withCode(exIOErr, err)
	}
	for after := (queue.EnvelopeID{}); ; {
		page, err := x.q.Export(ctx, queue.Export{Filter: f, After: after, Limit: queuePage})
		if err != nil {
			return err
		}
		if n := len(page.Envelopes); n > 0 {
			after = page.Envelopes[n-1].ID
		}
		if x.remove && len(page.Envelopes) > 0 {
			err = x.hold(ctx, page.Envelopes)
		} else {
			err = x.page(ctx, &page)
		}
		if err != nil {
			return err
		}
		if !page.More {
			break
		}
	}
	if err := x.flush(ctx); err != nil {
		return err
	}
	return withCode(exIOErr, errors.Join(x.archive.close(), out.Flush()))
}

func (x *exporting) reason() string { return "export " + x.id }

func idsOf(list []queue.Exported) []string {
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID.String()
	}
	return ids
}

// hold keeps the envelopes of a page from being tried, and exports them as they are
// then. What is held already stays held as it is.
func (x *exporting) hold(ctx context.Context, list []queue.Exported) error {
	f := queue.Filter{IDs: idsOf(list)}
	if err := eachSteered(ctx, x.q, queue.Steer{Op: queue.OpHold, Filter: f, Reason: x.reason()}, nil); err != nil {
		return err
	}
	for after := (queue.EnvelopeID{}); ; {
		page, err := x.q.Export(ctx, queue.Export{Filter: f, After: after, Limit: queuePage, Own: x.reason()})
		if err != nil {
			return err
		}
		if err := x.page(ctx, &page); err != nil || !page.More {
			return err
		}
		after = page.Envelopes[len(page.Envelopes)-1].ID
	}
}

// page collects the envelopes of each message.
func (x *exporting) page(ctx context.Context, page *queue.ExportPage) error {
	messages := page.Messages
	for i := range page.Envelopes {
		e := &page.Envelopes[i]
		for messages[0].ID != e.ID.Message {
			messages = messages[1:]
		}
		if x.current.ID != e.ID.Message {
			if err := x.flush(ctx); err != nil {
				return err
			}
			x.current = messages[0]
		}
		switch {
		case e.Reporting:
			x.leave(e.ID, "only the report to its sender is left of it, which is sent from here", false)
		case x.remove && e.InFlight:
			x.leave(e.ID, "it is being delivered at the moment", true)
		case x.remove && !e.Own && !e.Held:
			x.leave(e.ID, "it is just being worked on", true)
		default:
			x.list = append(x.list, e.Portable)
		}
	}
	return nil
}

func (x *exporting) leave(id queue.EnvelopeID, why string, busy bool) {
	x.refused = append(x.refused, queue.Refusal{ID: id, Why: why, Busy: busy})
}

// flush writes the message whose envelopes were collected.
func (x *exporting) flush(ctx context.Context) error {
	list := x.list
	if x.list = nil; len(list) == 0 {
		return nil
	}
	err := x.message(ctx, list)
	var body bodyError
	if !errors.As(err, &body) {
		return withCode(exIOErr, err)
	}
	f := queue.Filter{}
	for i := range list {
		x.leave(list[i].ID, "not exported: "+body.Error(), false)
		f.IDs = append(f.IDs, list[i].ID.String())
		if x.remove && (len(f.IDs) == queuePage || i == len(list)-1) {
			if err := eachSteered(ctx, x.q, x.ending(f), nil); err != nil {
				return err
			}
			f.IDs = nil
		}
	}
	x.failed = true
	return nil
}

// message writes one message.
func (x *exporting) message(ctx context.Context, list []queue.Portable) error {
	body, err := x.q.OpenBody(ctx, x.current.ID)
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.Is(err, rpc.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return withCode(exUnavailable, err)
	case errors.Is(err, rpc.ErrNotFound):
		return bodyError{errors.New("it left the queue meanwhile")}
	default:
		return bodyError{err}
	}
	defer func() { _ = body.Close() }()
	if err := x.archive.add(x.current, list, body); err != nil {
		return err
	}
	x.bar.show(fmt.Sprintf("%s %d of %d envelopes", barOf(float64(x.archive.end.Envelopes)/float64(max(1, x.all))), x.archive.end.Envelopes, x.all))
	return nil
}

// ending ends the holds of this export.
func (x *exporting) ending(f queue.Filter) queue.Steer {
	return queue.Steer{Op: queue.OpRelease, Filter: f, Own: x.reason(), Keep: true, Reason: x.reason()}
}

// release lets go of what was held for an export that failed.
func (x *exporting) release(ctx context.Context) error {
	if !x.remove || x.archive == nil {
		return nil
	}
	err := eachSteered(context.WithoutCancel(ctx), x.q, x.ending(queue.Filter{States: []queue.State{queue.StateHeld}}), nil)
	if err != nil {
		return fmt.Errorf("what it held is still %q: release it by hand: %w", "held by hand: "+x.reason(), err)
	}
	return nil
}

// removeExported removes from the queue what stands in the file.
func (x *exporting) removeExported(ctx context.Context, path string) (int, error) {
	removed := 0
	err := x.removeListed(ctx, path, &removed)
	if err != nil {
		err = fmt.Errorf("%s is complete, but what is in it was removed only in part; the rest is still %q: %w", path, "held by hand: "+x.reason(), err)
	}
	return removed, withCode(exUnavailable, err)
}

func (x *exporting) removeListed(ctx context.Context, path string, removed *int) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	a, err := openArchive(in)
	if err != nil {
		return err
	}
	var ids []string
	for {
		m, err := a.message()
		if err != nil {
			return err
		}
		if m != nil {
			for i := range m.Envelopes {
				ids = append(ids, m.Envelopes[i].ID.String())
			}
			if _, err := a.body(m); err != nil {
				return err
			}
			a.whole++
		}
		for len(ids) >= queuePage || m == nil && len(ids) > 0 {
			n := min(len(ids), queuePage)
			s := queue.Steer{Op: queue.OpRemove, Filter: queue.Filter{IDs: ids[:n]}, Idle: true, Reason: x.reason()}
			if err := eachSteered(ctx, x.q, s, func(out queue.Steered) {
				*removed += out.Count
				x.refused = append(x.refused, out.Refused...)
			}); err != nil {
				return err
			}
			ids = ids[n:]
		}
		if m == nil {
			return nil
		}
	}
}

func (g *globals) printExported(cmd *cobra.Command, out *exported, path string) error {
	to := cmd.OutOrStdout()
	if path == "-" {
		to = cmd.ErrOrStderr()
	}
	if g.json {
		if out.Left == nil {
			out.Left = []queue.Refusal{}
		}
		return printJSON(to, out)
	}
	printRefused(cmd.ErrOrStderr(), out.Left)
	_, err := fmt.Fprintf(to, "export %s: %d messages with %d envelopes\n", out.Export, out.Messages, out.Envelopes)
	if out.Removed > 0 {
		_, err = fmt.Fprintf(to, "%d envelopes removed\n", out.Removed)
	}
	return err
}

// failure is the error of what was left out.
func (x *exporting) failure(out *exported) error {
	if x.failed {
		return exitf(exDataErr, "some messages were not exported")
	}
	for _, r := range x.refused {
		if r.Busy {
			return exitf(exTempFail, "some envelopes were left out, or left; export again for them")
		}
	}
	if lost := out.Envelopes - out.Removed; x.remove && lost > 0 {
		return exitf(exTempFail, "%d envelopes in the file had left the queue before they were removed: they were delivered from here, or removed", lost)
	}
	return nil
}
