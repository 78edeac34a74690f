package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tabard/internal/address"
	"tabard/internal/rpc"
)

// Import is a message of another queue, as Export told of it.
type Import struct {
	Export    string    // id of the export
	Exported  time.Time // when: what the envelopes had left then they have now
	Moved     bool      // the export removed what it wrote
	Message   Message
	Envelopes []Portable
}

// Importer takes the body of a message. Exactly one of Commit and Abort ends it.
type Importer interface {
	// Known says why there is nothing to do; empty: there is.
	Known() string
	// Write appends to the body.
	Write(p []byte) (int, error)
	// Commit stores the message and returns, once that is durable, how many
	// envelopes are new here.
	Commit(ctx context.Context) (int, error)
	// Abort forgets what was written.
	Abort()
}

// ImportMark notes in the store that a message was imported.
type ImportMark struct {
	Export  string
	Message MessageID
	At      time.Time
}

// Bounds of what is imported; a file may be anybody's.
const (
	MaxImported   = 4 * MaxRecipients // envelopes of a message: redirection adds some
	maxExportID   = 64
	maxTries      = 1 << 20
	maxOutcome    = 16 << 10
	maxImportAge  = 50 * 365 * 24 * time.Hour
	maxClockSkew  = 24 * time.Hour
	handPrefix    = "held by hand: "
	ImportsKept   = 90 * 24 * time.Hour // how long imports are remembered
	alreadyThere  = "it is in the queue already"
	importedOnce  = "it was imported before"
	importedTwice = "it is just being imported by another command"
)

// importsNow are the messages that are being imported.
type importsNow struct {
	mu  sync.Mutex
	ids map[MessageID]bool
}

func (n *importsNow) begin(id MessageID) (end func(), err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ids[id] {
		return nil, fmt.Errorf("%w: message %s: %s", rpc.ErrBusy, id, importedTwice)
	}
	if n.ids == nil {
		n.ids = make(map[MessageID]bool)
	}
	n.ids[id] = true
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.ids, id)
	}), nil
}

// check refuses what would break a log line, a header, the schedule or the order of
// ids.
func (in *Import) check(now time.Time) error {
	m := &in.Message
	if in.Export == "" || len(in.Export) > maxExportID || !oneLine(in.Export) {
		return fmt.Errorf("%w: id %.80q of an export", rpc.ErrInvalid, in.Export)
	}
	if at := m.ID.Time(); m.ID <= 0 || at.After(now.Add(maxClockSkew)) {
		return fmt.Errorf("%w: message id %s", rpc.ErrInvalid, m.ID)
	}
	if m.Size < 0 || m.Size > MaxBody {
		return fmt.Errorf("%w: body of %d bytes", rpc.ErrInvalid, m.Size)
	}
	times := []time.Time{in.Exported, m.Created}
	s := Submission{Message: *m}
	seen := make(map[int]bool, len(in.Envelopes))
	for i := range in.Envelopes {
		e := &in.Envelopes[i]
		if e.ID.Message != m.ID || e.ID.N < 0 || e.ID.N > 1<<30 || seen[e.ID.N] {
			return fmt.Errorf("%w: envelope id %s", rpc.ErrInvalid, e.ID)
		}
		seen[e.ID.N] = true
		if err := e.checkHistory(); err != nil {
			return err
		}
		times = append(times, e.Created, e.Expires, e.Next)
		s.Recipients = append(s.Recipients, e.Envelope)
	}
	for _, t := range times {
		if t.Before(now.Add(-maxImportAge)) || t.After(now.Add(maxWish)) {
			return fmt.Errorf("%w: time %s", rpc.ErrInvalid, t)
		}
	}
	if n := len(s.Recipients); n > MaxImported {
		return fmt.Errorf("%w: %d envelopes, want up to %d", rpc.ErrInvalid, n, MaxImported)
	}
	return s.checkAll()
}

// checkHistory checks what a Submission does not have.
func (p *Portable) checkHistory() error {
	if p.Attempts < 0 || p.Attempts > maxTries || p.Warned < 0 || p.Warned > lateTold<<1 || len(p.Outcome) > maxOutcome {
		return fmt.Errorf("%w: history of envelope %s", rpc.ErrInvalid, p.ID)
	}
	if note, last := parseNotice(p.Outcome); p.Outcome != "" && (note != nil || last == nil) {
		return fmt.Errorf("%w: outcome of envelope %s", rpc.ErrInvalid, p.ID)
	}
	return checkTexts([]text{{"last error", p.LastError, maxErrorText + 8}, {"reason of a hold", p.HeldFor, 2 * maxText}})
}

// Import implements Admin.
func (q *Queue) Import(ctx context.Context, in Import) (Importer, error) {
	if err := in.check(time.Now()); err != nil {
		return nil, err
	}
	if err := q.checkActions(ctx, in.Envelopes); err != nil {
		return nil, err
	}
	end, err := q.imports.begin(in.Message.ID)
	if err != nil {
		return nil, err
	}
	i := &importing{queue: q, in: in, end: end, w: &writer{queue: q}}
	if err := i.compare(ctx); err != nil {
		end()
		return nil, fmt.Errorf("message %s: %w", in.Message.ID, err)
	}
	return i, nil
}

// checkActions refuses mail of actions that are not here: it would wait in vain.
func (q *Queue) checkActions(ctx context.Context, list []Portable) error {
	seen := make(map[string]bool)
	for i := range list {
		e := &list[i]
		if e.Action == "" {
			continue
		}
		info, ok := q.actions.lookup(e.Action)
		if !ok && !seen[e.Action] {
			seen[e.Action] = true
			if err := q.actions.missing(ctx, e.Action); err != nil {
				return err
			}
			info, ok = q.actions.lookup(e.Action)
		}
		if ok && info.Relay != e.Relay {
			return fmt.Errorf("%w: envelope %s: action %s relays in one of both configurations, and delivers here in the other", rpc.ErrInvalid, e.ID, e.Action)
		}
	}
	return nil
}

// importing is one message on its way here.
type importing struct {
	queue *Queue
	in    Import
	w     *writer
	known string
	there *Message // the message, if other envelopes of it are here
	size  int64
	end   func()
	over  bool
}

// compare looks for what is here already.
func (i *importing) compare(ctx context.Context) error {
	m := &i.in.Message
	switch before, err := i.queue.store.Imported(ctx, i.in.Export, m.ID); {
	case err != nil:
		return err
	case before:
		i.known = importedOnce
		return nil
	}
	rows, err := i.queue.store.Envelopes(ctx, m.ID)
	if err != nil || len(rows) == 0 {
		return err
	}
	old := rows[0].Message
	if old.Sender != m.Sender || old.Size != m.Size || !old.Created.Equal(m.Created.Truncate(time.Millisecond)) {
		return fmt.Errorf("%w: another message has its id here", rpc.ErrInvalid)
	}
	have := make(map[int]bool)
	for _, r := range rows {
		have[r.ID.N] = true
	}
	left := slices.DeleteFunc(slices.Clone(i.in.Envelopes), func(p Portable) bool { return have[p.ID.N] })
	if len(left) == 0 || !i.in.Moved {
		i.known = alreadyThere
		return nil
	}
	i.in.Envelopes, i.there = left, old
	return nil
}

// Known implements Importer.
func (i *importing) Known() string { return i.known }

// Write implements Importer.
func (i *importing) Write(p []byte) (int, error) {
	switch {
	case i.over || i.known != "":
		return 0, errEnded
	case i.size+int64(len(p)) > i.in.Message.Size:
		return 0, fmt.Errorf("%w: body of more than %d bytes", rpc.ErrTooLarge, i.in.Message.Size)
	}
	i.size += int64(len(p))
	if i.there != nil { // with the body that is here
		return len(p), nil
	}
	return i.w.Write(p)
}

// Abort implements Importer.
func (i *importing) Abort() {
	if !i.over {
		i.over = true
		i.w.Abort()
		i.end()
	}
}

// Commit implements Importer.
func (i *importing) Commit(ctx context.Context) (int, error) {
	if i.over {
		return 0, errEnded
	}
	defer i.end()
	if i.known != "" || i.size != i.in.Message.Size {
		known := i.known != ""
		i.Abort()
		if known {
			return 0, nil
		}
		return 0, fmt.Errorf("%w: body of %d bytes, want %d", rpc.ErrInvalid, i.size, i.in.Message.Size)
	}
	i.over = true
	q := i.queue
	now := time.Now().Truncate(time.Millisecond)
	change := &Change{DueAt: now, Import: &ImportMark{Export: i.in.Export, Message: i.in.Message.ID, At: now}}
	list := make([]NewEnvelope, len(i.in.Envelopes))
	for n := range i.in.Envelopes {
		list[n] = q.imported(ctx, &i.in, &i.in.Envelopes[n], now)
	}
	q.holdMu.Lock()
	defer q.holdMu.Unlock()
	holds, err := q.importHolds(change, list, i.in.Envelopes)
	if err == nil {
		err = i.store(ctx, change, list)
	}
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%w: it changed here meanwhile: %w", rpc.ErrBusy, err)
	}
	if err != nil {
		return 0, fmt.Errorf("message %s: %w", i.in.Message.ID, err)
	}
	for _, h := range holds {
		q.keepHold(h)
	}
	i.enter(list, now)
	return len(list), nil
}

// store makes the message durable.
func (i *importing) store(ctx context.Context, change *Change, list []NewEnvelope) error {
	q := i.queue
	if i.there != nil {
		i.w.Abort()
		for _, e := range list {
			change.Attach = append(change.Attach, Attached{i.there, e})
		}
		return q.commits.do(ctx, change)
	}
	defer i.w.leave()
	m, err := i.w.finishAs(func(int64) (*NewMessage, error) {
		return &NewMessage{Message: i.in.Message, Envelopes: list}, nil
	})
	if err == nil {
		defer q.epochs.begin()()
		if err = q.store.Encode(m); err == nil {
			change.Insert = []NewMessage{*m}
			err = q.commits.do(ctx, change)
		}
	}
	i.w.undo(err)
	return err
}

// imported is an envelope as it goes on here. It has the time that was left when it
// was exported; when it is to be tried, and when its sender wants it to be there, is
// as it was.
func (q *Queue) imported(ctx context.Context, in *Import, p *Portable, now time.Time) NewEnvelope {
	e := p.Envelope
	e.Held, e.HeldFor = false, ""
	if away := now.Sub(in.Exported); away > 0 {
		e.Expires = e.Expires.Add(away)
	}
	if by := in.Message.DeliverBy; !by.Time.IsZero() && !by.Notify && by.Time.Before(e.Expires) {
		e.Expires = by.Time
	}
	return NewEnvelope{
		Envelope: e, Destination: destinationKey(&e, q.actions.get(ctx, e.Action).Host), Lane: in.Message.Lane(),
		Warned: p.Warned, Notice: p.Outcome,
	}
}

// importHolds gives the envelopes that were held a hold by hand, which says why they
// were: what held them there is not here. Needs holdMu.
func (q *Queue) importHolds(c *Change, list []NewEnvelope, from []Portable) ([]*Hold, error) {
	var holds []*Hold
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	find := func(value string) int64 {
		if i := q.findHold(HoldHand, value); i >= 0 {
			return q.holds[i].ID
		}
		if i := slices.IndexFunc(holds, func(h *Hold) bool { return h.Value == value }); i >= 0 {
			return holds[i].ID
		}
		if q.countHolds()+len(holds) >= maxHolds {
			return 0
		}
		h := &Hold{ID: max(q.lastHold+1, firstHold) + int64(len(holds)), Kind: HoldHand, Value: value, Created: c.DueAt}
		holds = append(holds, h)
		return h.ID
	}
	for i := range from {
		if !from[i].Held {
			continue
		}
		value := address.OneLine(strings.TrimPrefix(from[i].HeldFor, handPrefix), maxReason)
		if value == "" || value == strings.TrimSuffix(handPrefix, ": ") {
			value = byHand
		}
		id := find(value)
		if id == 0 {
			id = find(byHand)
		}
		if id == 0 {
			return nil, fmt.Errorf("%w: there are %d holds already", rpc.ErrInvalid, maxHolds)
		}
		list[i].Hold = id
	}
	for _, h := range holds {
		c.Hold = append(c.Hold, *h)
	}
	return holds, nil
}

// enter schedules what is durable now.
func (i *importing) enter(list []NewEnvelope, now time.Time) {
	q := i.queue
	q.count.enqueued.Add(int64(len(list)))
	came := i.in.Message
	came.Created = now
	q.recordEnvelopes(&NewMessage{Message: came, Envelopes: list})
	for n := range list {
		if list[n].Hold == 0 {
			q.noteStored(&list[n])
		}
	}
	q.kick()
	q.log.Info("queue import", "message", i.in.Message.ID.String(), "envelopes", len(list), "export", i.in.Export)
}
