package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"tabard/internal/rpc"
	"tabard/queue"
)

// importTotals is what became of a file.
type importTotals struct {
	Export    string          `json:"export"`
	Messages  int             `json:"messages"`
	Envelopes int             `json:"envelopes"`
	Known     int             `json:"known"` // messages that were here, or had been
	Refused   []importRefusal `json:"refused"`
}

type importRefusal struct {
	Message queue.MessageID `json:"message"`
	Why     string          `json:"why"`
}

// maxImportRefusals bounds what is remembered of a bad file.
const maxImportRefusals = 1000

func (g *globals) queueImport() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE|-",
		Short: "Take over messages that \"tabard queue export\" wrote",
		Long: `Import puts the messages of an export into the queue of the running server. Envelopes keep
their attempts, their next attempt, and the time they had left when they were exported;
what was held is held by hand, with the reason that it had.

Each message is taken over as a whole or not at all. One that is in the queue already, or
was imported before from the same export, is passed over, whatever became of it: an import
that was interrupted is simply given again. A message whose text is not what was exported,
or whose action is not in the configuration, is refused and told of; of a file that is cut,
what is whole is imported. The exit code is 65 then.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return withCode(exNoInput, err)
				}
				defer func() { _ = f.Close() }()
				in = f
			}
			return g.withQueue(func(ctx context.Context, q queue.Admin) error { return g.importFile(ctx, cmd, q, in) })
		},
	}
}

// importFile imports what is whole of a file, and says what is not.
func (g *globals) importFile(ctx context.Context, cmd *cobra.Command, q queue.Admin, in io.Reader) error {
	if _, seekable := in.(io.Seeker); !seekable {
		in = bufio.NewReaderSize(in, 64<<10)
	}
	a, err := openArchive(in)
	if err != nil {
		return withCode(exDataErr, err)
	}
	i := &importing{q: q, a: a, out: importTotals{Export: a.head.Export, Refused: []importRefusal{}}, slots: make(chan struct{}, queue.MaxImports-1), stored: make(map[queue.MessageID]bool)}
	bar := newProgressLine(cmd.ErrOrStderr())
	for err == nil && i.failure() == nil {
		var m *archiveMessage
		if m, err = a.message(); m == nil || err != nil {
			break
		}
		err = i.message(ctx, m)
		bar.show(fmt.Sprintf("%d messages", a.whole))
	}
	i.all.Wait()
	bar.clear()
	slices.SortFunc(i.out.Refused, func(a, b importRefusal) int { return cmp.Compare(a.Message, b.Message) })
	return errors.Join(g.printImported(cmd, &i.out), i.failed, withCode(exDataErr, err), importFailure(i.refused))
}

// importing reads messages of a file one after the other, while the server makes those
// before durable: that takes as long for one as for many.
type importing struct {
	q     queue.Admin
	a     *archiveReader
	slots chan struct{}
	all   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	stored  map[queue.MessageID]bool
	out     importTotals
	refused int
	failed  error // why the server takes no more
}

func (i *importing) failure() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.failed
}

// message imports one message. An error is about the file.
func (i *importing) message(ctx context.Context, m *archiveMessage) error {
	body, err := i.a.body(m)
	if err != nil {
		return err
	}
	if m.Export != i.a.head.Export {
		i.a.whole++
		i.settle(m.Message.ID, 0, errOtherExport)
		return nil
	}
	if i.isStored(m.Message.ID) { // it is here twice
		i.all.Wait()
	}
	to, err := i.q.Import(ctx, queue.Import{
		Export: m.Export, Exported: m.Exported, Moved: i.a.head.Moved, Message: m.Message, Envelopes: m.Envelopes,
	})
	if err == nil && to.Known() != "" {
		to.Abort()
		i.known()
		i.a.whole++
		return nil
	}
	if err == nil {
		if err = body.copyTo(to); err != nil {
			to.Abort()
		}
	}
	switch {
	case isCut(err):
		return err
	case err != nil:
		i.settle(m.Message.ID, 0, err)
	default:
		i.commit(ctx, m.Message.ID, to)
	}
	i.a.whole++
	return nil
}

func (i *importing) known() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.out.Known++
}

// isStored reports whether a message of that id is being made durable.
func (i *importing) isStored(id queue.MessageID) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stored[id]
}

// commit has a message made durable.
func (i *importing) commit(ctx context.Context, id queue.MessageID, to queue.Importer) {
	i.slots <- struct{}{}
	i.mu.Lock()
	i.stored[id] = true
	i.mu.Unlock()
	i.all.Go(func() {
		n, err := to.Commit(ctx)
		i.settle(id, n, err)
		<-i.slots
	})
}

// errOtherExport is why a message is refused that somebody put into the file.
var errOtherExport = errors.New("it is of another export than the file")

// settle notes what became of a message.
func (i *importing) settle(id queue.MessageID, envelopes int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.stored, id)
	switch {
	case err == nil:
		i.out.Messages++
		i.out.Envelopes += envelopes
	case errors.Is(err, rpc.ErrInvalid), errors.Is(err, rpc.ErrTooLarge), errors.Is(err, rpc.ErrBusy), errors.Is(err, errChanged), errors.Is(err, errOtherExport):
		if i.refused++; i.refused <= maxImportRefusals {
			i.out.Refused = append(i.out.Refused, importRefusal{id, err.Error()})
		}
	case i.failed == nil:
		i.failed = fmt.Errorf("message %s: %w", id, withCode(exUnavailable, err))
	}
}

func isCut(err error) bool {
	var cut *errCut
	return errors.As(err, &cut)
}

func (g *globals) printImported(cmd *cobra.Command, out *importTotals) error {
	if g.json {
		return printJSON(cmd.OutOrStdout(), out)
	}
	for _, r := range out.Refused {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: refused: %s\n", r.Message, r.Why)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d messages with %d envelopes imported, %d known already\n", out.Messages, out.Envelopes, out.Known)
	return err
}

func importFailure(refused int) error {
	if refused == 0 {
		return nil
	}
	return exitf(exDataErr, "%d messages were refused", refused)
}
