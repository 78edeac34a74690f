package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	out := &importTotals{Export: a.head.Export, Refused: []importRefusal{}}
	bar := newProgressLine(cmd.ErrOrStderr())
	refused := 0
	for err == nil {
		var m *archiveMessage
		if m, err = a.message(); m == nil || err != nil {
			break
		}
		var why error
		if why, err = importMessage(ctx, q, a, m, out); why != nil {
			if refused++; refused <= maxImportRefusals {
				out.Refused = append(out.Refused, importRefusal{m.Message.ID, why.Error()})
			}
		}
		bar.show(fmt.Sprintf("%d messages", a.whole))
	}
	bar.clear()
	return errors.Join(g.printImported(cmd, out), withCode(exDataErr, err), importFailure(refused))
}

// importMessage imports one message. why is about this one, err about the file, or the
// server.
func importMessage(ctx context.Context, q queue.Admin, a *archiveReader, m *archiveMessage, out *importTotals) (why, err error) {
	body, err := a.body(m)
	if err != nil {
		return nil, err
	}
	if m.Export != a.head.Export {
		a.whole++
		return errors.New("it is of another export than the file"), nil
	}
	to, err := q.Import(ctx, queue.Import{
		Export: m.Export, Exported: m.Exported, Moved: a.head.Moved, Message: m.Message, Envelopes: m.Envelopes,
	})
	if err == nil && to.Known() != "" {
		to.Abort()
		a.whole++
		out.Known++
		return nil, nil
	}
	n := 0
	if err == nil {
		if err = body.copyTo(to); err != nil {
			to.Abort()
		} else {
			n, err = to.Commit(ctx)
		}
	}
	switch {
	case err == nil:
		out.Messages++
		out.Envelopes += n
	case errors.Is(err, rpc.ErrInvalid), errors.Is(err, rpc.ErrTooLarge), errors.Is(err, rpc.ErrBusy), errors.Is(err, errChanged):
		a.whole++
		return err, nil
	case isCut(err):
		return nil, err
	default:
		return nil, fmt.Errorf("message %s: %w", m.Message.ID, withCode(exUnavailable, err))
	}
	a.whole++
	return nil, nil
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
