package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/address"
	"tabard/internal/rpc"
	"tabard/queue"
)

// shownParts is what of a message `queue show` prints.
type shownParts struct {
	headers, body bool // these alone
	max           int
}

func (g *globals) queueShow() *cobra.Command {
	var parts shownParts
	cmd := &cobra.Command{
		Use:   "show MESSAGE|ENVELOPE",
		Short: "Show a message: its envelopes, what came of the attempts at them, and its text",
		Long: `Show prints what is known of a message or of one of its envelopes: who brought it, and
of each recipient the last ` + strconv.Itoa(queue.KeptAttempts) + ` attempts with the reply or the error; and its text. With
--headers or --body only the header, or the whole message as it was received, is printed.
The text is compared with its checksum before anything of it is shown.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, n, err := queue.ParseID(args[0])
			if err != nil {
				return withCode(exUsage, err)
			}
			if parts.max < 0 {
				return exitf(exUsage, "--max %d: want a number of bytes", parts.max)
			}
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				if parts.headers || parts.body {
					return printBody(ctx, cmd.OutOrStdout(), q, id, parts.headers)
				}
				return g.show(ctx, cmd, q, id, n, parts.max)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&parts.max, "max", 64<<10, "show at most so many `bytes` of the text")
	flags.BoolVar(&parts.headers, "headers", false, "print the header only")
	flags.BoolVar(&parts.body, "body", false, "print the message only, all of it")
	cmd.MarkFlagsMutuallyExclusive("headers", "body", "max")
	return cmd
}

func (g *globals) show(ctx context.Context, cmd *cobra.Command, q queue.Admin, id queue.MessageID, n, most int) error {
	s, err := q.Show(ctx, id, n, most)
	if n >= 0 && errors.Is(err, rpc.ErrNotFound) {
		return exitf(exDataErr, "envelope %s.%d: not in the queue", id, n)
	}
	if err != nil {
		return shownError(id, err)
	}
	if g.json {
		return printJSON(cmd.OutOrStdout(), s)
	}
	return printShown(cmd.OutOrStdout(), &s)
}

// shownError says whether there is no such message, or its body is damaged.
func shownError(id queue.MessageID, err error) error {
	switch {
	case errors.Is(err, rpc.ErrNotFound):
		return exitf(exDataErr, "message %s: not in the queue", id)
	case errors.Is(err, rpc.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return withCode(exUnavailable, err)
	}
	return exitf(exDataErr, "message %s: %w", id, err)
}

func printShown(w io.Writer, s *queue.Shown) error {
	out := bufio.NewWriter(w)
	m := s.Message
	_, _ = fmt.Fprintf(out, "message: %s\nfrom: <%s>\nsize: %d\nreceived: %s\nclient: %s [%s] user=%s session=%s\n",
		m.ID, m.Sender, m.Size, m.Created.Format(time.RFC3339), dash(m.Helo), dash(m.Remote), dash(m.User), dash(m.Session))
	printWishes(out, &m)
	for _, e := range s.Envelopes {
		_, _ = fmt.Fprintf(out, "envelope: %s to=<%s> rcpt=<%s> action=%s state=%s tries=%d next=%s expires=%s held=%s error=%s\n", e.ID, e.Address, e.Recipient,
			dash(e.Action), shownState(s, &e, time.Now()), e.Attempts, e.Next.Format(time.RFC3339), e.Expires.Format(time.RFC3339), dash(address.OneLine(e.HeldFor, 300)), address.OneLine(dash(e.LastError), 500))
		for _, a := range s.Attempts {
			if a.ID == e.ID {
				_, _ = fmt.Fprintf(out, "  attempt %d: %s at=%s result=%s next=%s\n", a.Number, a.At.Format(time.RFC3339), dash(a.Remote),
					address.OneLine(dash(a.Result), 500), a.Next.Format(time.RFC3339))
			}
		}
	}
	if s.More {
		_, _ = fmt.Fprintf(out, "[not all envelopes and attempts are shown: \"queue ls %s\" lists them, \"queue show %s.N\" shows one]\n", m.ID, m.ID)
	}
	_, _ = fmt.Fprintf(out, "\n%s", s.Body)
	switch {
	case s.Fault != "":
		_, _ = fmt.Fprintf(out, "[its text is not shown: %s]\n", s.Fault)
	case s.Truncated:
		_, _ = fmt.Fprintln(out, "\n[the rest is not shown; see --max]")
	}
	return withCode(exIOErr, out.Flush())
}

// shownState is the state of an envelope, as a listing has it.
func shownState(s *queue.Shown, e *queue.Envelope, now time.Time) queue.State {
	switch {
	case slices.Contains(s.Active, e.ID):
		return queue.StateActive
	case e.Held:
		return queue.StateHeld
	case e.Next.After(now):
		return queue.StateDeferred
	}
	return queue.StateDue
}

// printBody prints a message, or its header, as it was received.
func printBody(ctx context.Context, w io.Writer, q queue.Admin, id queue.MessageID, headers bool) error {
	body, err := q.OpenBody(ctx, id)
	if err != nil {
		return shownError(id, err)
	}
	defer func() { _ = body.Close() }()
	in := bufio.NewReaderSize(io.NewSectionReader(body, 0, body.Size()), 64<<10)
	out := bufio.NewWriter(w)
	if !headers {
		_, err = in.WriteTo(out)
		return withCode(exIOErr, errors.Join(err, out.Flush()))
	}
	for begin := true; ; {
		line, err := in.ReadSlice('\n')
		if begin && strings.TrimRight(string(line), "\r\n") == "" {
			break
		}
		begin = err == nil // else the line goes on
		_, _ = out.Write(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if err != io.EOF {
				return withCode(exIOErr, err)
			}
			break
		}
	}
	return withCode(exIOErr, out.Flush())
}
