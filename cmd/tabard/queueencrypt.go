package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/bodycode"
	"tabard/internal/config"
	"tabard/internal/sealing"
	"tabard/lookup"
	"tabard/queue"
)

// secretText is text that is not for logs.
type secretText string

// String keeps it out of them.
func (secretText) String() string { return "(secret)" }

// GoString keeps it out of %#v.
func (s secretText) GoString() string { return s.String() }

const encryptNewKey = "tabard queue encrypt new-key"

// queueKeys reads the file of queue encryption for the process queue, which has
// nothing of the file system but the spool. A file that is not good is a fault of the
// configuration.
func queueKeys(cfg *config.Config) (secretText, error) {
	if cfg.Queue.Encryption == "" {
		return "", nil
	}
	ring, err := readKeys(cfg.Queue.Encryption, encryptNewKey)
	if err != nil {
		return "", exitf(exConfig, "queue encryption: %w", err)
	}
	return secretText(ring.Text()), nil
}

// queueProblems looks at the file of queue encryption for check.
func queueProblems(cfg *config.Config) []lookup.Problem {
	p := lookup.Problem{Pos: cfg.Where["queue encryption"]}
	if _, err := queueKeys(cfg); err != nil {
		p.Cause = err.Error()
		return []lookup.Problem{p}
	}
	info, err := os.Stat(cfg.Queue.Encryption)
	if err != nil || info.Mode().Perm()&0o077 == 0 { // there is none, or it is as it should be
		return nil
	}
	p.Cause, p.Warning = fmt.Sprintf("%s: others than its owner may read it: mode %v", cfg.Queue.Encryption, info.Mode().Perm()), true
	return []lookup.Problem{p}
}

// coder is how the queue stores bodies.
func (c queueConfig) coder() (*bodycode.Coder, error) {
	o := bodycode.Options{Compress: c.Queue.Compression}
	if c.Keys != "" {
		ring, err := sealing.ParseRing([]byte(c.Keys))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Queue.Encryption, err)
		}
		o.Keys, o.Encrypt = ring, !c.Queue.ReadOnly
	}
	return bodycode.New(o)
}

func (g *globals) queueEncrypt() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "encrypt",
		Short: "Keys that encrypt the mail that waits",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Long: `Encrypt is about the keys under which the queue stores the bodies of messages, in the
file of queue encryption. The first key in it encrypts; all of them open.

  tabard queue encrypt new-key        make the file, or put a new key in front
  tabard queue encrypt rotate         new key, and every encrypted body under it
  tabard queue encrypt ls             which keys there are, and which are needed`,
	}
	cmd.AddCommand(g.encryptNewKey(), g.encryptRotate(), g.encryptList())
	return cmd
}

// encryptionFile is the file that the configuration names.
func encryptionFile(cfg *config.Config) (string, error) {
	if cfg.Queue.Encryption == "" {
		return "", exitf(exConfig, "the configuration names no file of keys: queue encryption FILE")
	}
	return cfg.Queue.Encryption, nil
}

// writeQueueKeys replaces the file. It is read by the server as it was started, so
// that a new one belongs to whoever makes it.
func writeQueueKeys(path string, ring *sealing.Ring) error {
	text := ring.TextUnder("Keys of Tabard's queue: whoever reads this can read the mail that waits in it.",
		"The first one encrypts. See tabard queue encrypt --help.")
	return withCode(exCantCreat, writeKeys(path, text, func(f *os.File, path string) error {
		_, err := asBefore(f, path)
		return err
	}))
}

// newQueueKey puts a new key in front of the file.
func newQueueKey(path string) (*sealing.Ring, error) {
	ring, err := readKeys(path, encryptNewKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if ring, err = ring.WithNewKey(); err != nil {
		return nil, err
	}
	return ring, writeQueueKeys(path, ring)
}

func (g *globals) encryptNewKey() *cobra.Command {
	return &cobra.Command{
		Use:   "new-key",
		Short: "Put a new key in front of the file, which is made if it is missing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			path, err := encryptionFile(cfg)
			if err != nil {
				return err
			}
			ring, err := newQueueKey(path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "key %s in %s\nA running server uses it after tabard reload. Keep a copy in a safe place: without it the mail that it encrypts is lost.\n", ring.IDs()[0], path)
			return err
		},
	}
}

// withBodies talks to the running server's queue about how it stores bodies. It takes
// as long as that takes.
func (g *globals) withBodies(ctx context.Context, f func(queue.BodyAdmin) error) error {
	client, err := g.dialQueue(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return withCode(exUnavailable, f(queue.NewRemoteBodies(client)))
}

// reloadServer makes the running server read the file of keys.
func (g *globals) reloadServer(ctx context.Context) error {
	c, err := g.dialControl()
	if err != nil {
		return err
	}
	if err := c.Reload(ctx); err != nil {
		return exitf(exConfig, "not reloaded: %w", err)
	}
	return nil
}

// rotation is the flags of rotate.
type rotation struct {
	keep, all, forget bool
	path              string
	readOnly          bool // bodies are stored in clear
}

func (g *globals) encryptRotate() *cobra.Command {
	var r rotation
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Store every encrypted body anew, under a new key",
		Long: `Rotate puts a new key in front of the file, makes the running server use it, and then
has every body stored anew that is encrypted under another key, while mail comes and
goes. It may be interrupted at any time, or the server killed: with --keep-key it goes
on with what is left. At the end it says which keys nothing in the queue needs any more;
with --forget these leave the file. Where queue encryption says read-only there is no
new key: encrypted bodies are stored in clear, so that the file may go in the end.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			if r.path, err = encryptionFile(cfg); err != nil {
				return err
			}
			r.readOnly = cfg.Queue.ReadOnly
			return g.rotate(cmd, &r)
		},
	}
	cmd.Flags().BoolVar(&r.keep, "keep-key", false, "no new key: store bodies under the first one in the file")
	cmd.Flags().BoolVar(&r.all, "all", false, "encrypt bodies too that are not encrypted yet")
	cmd.Flags().BoolVar(&r.forget, "forget", false, "take keys out of the file that no body needs")
	return cmd
}

func (g *globals) rotate(cmd *cobra.Command, r *rotation) error {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	// Nothing is begun without a server to end it.
	if err := g.withBodies(ctx, func(q queue.BodyAdmin) error { _, err := q.Bodies(ctx); return err }); err != nil {
		return err
	}
	if !r.keep && !r.readOnly {
		if _, err := newQueueKey(r.path); err != nil {
			return err
		}
	}
	ring, err := readKeys(r.path, encryptNewKey)
	if err != nil {
		return err
	}
	if err := g.reloadServer(ctx); err != nil {
		return err
	}
	var result rotated
	err = g.withBodies(ctx, func(q queue.BodyAdmin) error {
		state, err := q.Bodies(ctx)
		if err != nil {
			return err
		}
		if !slices.Equal(state.Keys, ring.IDs()) || !r.readOnly && state.Encoding.Key() != ring.IDs()[0] {
			return exitf(exConfig, "the running server does not use the keys in %s: is this its configuration?", r.path)
		}
		result, err = recodeAll(ctx, cmd.ErrOrStderr(), q, r.all)
		return err
	})
	if err == nil && result.Failed == 0 && r.forget {
		err = writeQueueKeys(r.path, ring.Only(func(id string) bool { return slices.Contains(result.Needed, id) }))
		if err == nil {
			err = g.reloadServer(ctx)
		}
	}
	if err != nil {
		return err
	}
	return g.printRotated(cmd, &result, ring, r)
}

// rotated is what rotate did.
type rotated struct {
	Stored int      `json:"stored"`          // bodies stored anew
	Failed int      `json:"failed"`          // that could not be
	Fault  string   `json:"fault,omitempty"` // why one of them
	Key    string   `json:"key,omitempty"`   // the present one; empty: they are stored in clear
	Needed []string `json:"needed"`          // ids of the keys that bodies need
}

// settleWait is how long rotate waits before it asks again about mail that was being
// taken when the keys changed.
const settleWait = 500 * time.Millisecond

// recodeAll has all bodies stored anew, also of mail that is still being taken.
func recodeAll(ctx context.Context, progress io.Writer, q queue.BodyAdmin, all bool) (rotated, error) {
	sum := rotated{Needed: []string{}}
	line := newProgressLine(progress)
	defer line.clear()
	total := 0
	for req := (queue.RecodeRequest{All: all}); ; {
		r, err := q.Recode(ctx, req)
		if err != nil {
			return sum, fmt.Errorf("%d bodies are stored anew, the rest is not: %w", sum.Stored, err)
		}
		sum.Stored, sum.Failed, total = sum.Stored+r.Done, sum.Failed+r.Failed, total+r.Done+r.Failed
		if sum.Fault == "" {
			sum.Fault = r.Fault
		}
		if r.End {
			break
		}
		line.show(fmt.Sprintf("%d bodies", total))
		req.From, req.After = r.From, r.After
		if r.From == "" && r.After == 0 && r.Done == 0 && r.Failed == 0 { // all that is there is done
			line.show(fmt.Sprintf("%d bodies; mail that is still coming in", total))
			if sum.Failed > 0 {
				break
			}
			select {
			case <-ctx.Done():
				return sum, ctx.Err()
			case <-time.After(settleWait):
			}
		}
	}
	state, err := q.Bodies(ctx)
	sum.Key = state.Encoding.Key()
	for _, s := range state.Stored {
		if key := s.Encoding.Key(); key != "" && !slices.Contains(sum.Needed, key) {
			sum.Needed = append(sum.Needed, key)
		}
	}
	return sum, err
}

func (g *globals) printRotated(cmd *cobra.Command, r *rotated, ring *sealing.Ring, how *rotation) error {
	if g.json {
		if err := printJSON(cmd.OutOrStdout(), r); err != nil {
			return err
		}
	} else {
		under := "in clear"
		if r.Key != "" {
			under = "under key " + r.Key
		}
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%d bodies stored %s\n", r.Stored, under)
		for _, id := range ring.IDs() {
			if id == r.Key || slices.Contains(r.Needed, id) || r.Failed > 0 {
				continue
			}
			word := "may go: no mail here needs it (--forget takes it out of the file)"
			if how.forget && id != ring.IDs()[0] {
				word = "is forgotten"
			}
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "key %s %s\n", id, word)
		}
	}
	if r.Failed > 0 {
		return exitf(exDataErr, "%d bodies are left as they were, and no key was forgotten, such as: %s", r.Failed, r.Fault)
	}
	return nil
}

// keyLine is a line of queue encrypt ls.
type keyLine struct {
	Key      string `json:"key"` // empty: bodies that are not encrypted
	State    string `json:"state"`
	Messages int64  `json:"messages"`
}

func (g *globals) encryptList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the keys of the running server, and how many messages need each",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
			defer cancel()
			return g.withBodies(ctx, func(q queue.BodyAdmin) error {
				state, err := q.Bodies(ctx)
				if err != nil {
					return err
				}
				lines := keyLines(state)
				rows := make([][]string, len(lines))
				for i, l := range lines {
					rows[i] = []string{dash(l.Key), l.State, strconv.FormatInt(l.Messages, 10)}
				}
				return g.printList(cmd, lines, []string{"KEY", "STATE", "MESSAGES"}, rows)
			})
		},
	}
}

// keyLines says what each key is good for.
func keyLines(s queue.BodyState) []keyLine {
	messages := make(map[string]int64)
	for _, n := range s.Stored {
		messages[n.Encoding.Key()] += n.Messages
	}
	var lines []keyLine
	for _, id := range s.Keys {
		l := keyLine{id, "needed", messages[id]}
		switch {
		case id == s.Encoding.Key():
			l.State = "encrypts"
		case l.Messages == 0 && s.Behind > 0:
			l.State = "may be needed: mail is coming in"
		case l.Messages == 0:
			l.State = "may go"
		}
		lines = append(lines, l)
	}
	for _, n := range s.Stored {
		id := n.Encoding.Key()
		if id == "" || slices.Contains(s.Keys, id) || slices.ContainsFunc(lines, func(l keyLine) bool { return l.Key == id }) {
			continue
		}
		lines = append(lines, keyLine{id, "missing: its messages wait", messages[id]})
	}
	return append(lines, keyLine{"", "not encrypted", messages[""]})
}
