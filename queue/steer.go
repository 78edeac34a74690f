package queue

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"tabard/internal/address"
	"tabard/internal/eventlog"
	"tabard/internal/rpc"
)

// Op is what is done to envelopes.
type Op string

// The things that are done to envelopes.
const (
	OpRetry    Op = "retry"    // due now
	OpHold     Op = "hold"     // kept back until released
	OpRelease  Op = "release"  // what was held by hand is due now
	OpRemove   Op = "remove"   // gone, and nobody is told
	OpRedirect Op = "redirect" // another action, or another recipient
	OpBounce   Op = "bounce"   // failed now: the sender is told
)

// Steer is one thing to do to a page of the envelopes that a filter chooses. As with a
// Filter, another version does not decode it.
type Steer struct {
	_      struct{} `cbor:",toarray"`
	Op     Op
	Filter Filter
	After  EnvelopeID // where the last page ended
	Limit  int
	DryRun bool   // only say what would be done
	Reason string // OpHold, OpBounce: one line, may be empty
	Action string // OpRedirect: its action from now on
	To     string // OpRedirect: or the recipient that the rules are asked for
	Own    string // OpRelease: only what was held with this reason
	Keep   bool   // OpRelease: to be tried when it was to be, not now
	Idle   bool   // OpRemove: not what is being delivered

	unurged bool // OpRetry: by the queue itself, whose destinations answer
}

// Steered is what was done.
type Steered struct {
	Count   int       // envelopes that were changed, or would be
	Changed []Listed  // with DryRun: as they are now
	Refused []Refusal // those that the filter chose, but that were left alone
	Last    EnvelopeID
	More    bool
}

// Refusal is why an envelope was left alone.
type Refusal struct {
	ID   EnvelopeID `json:"id"`
	Why  string     `json:"why"`
	Busy bool       `json:"busy"` // trying again soon may help
}

const (
	maxSteer    = 500 // envelopes in one transaction
	maxSteerDry = 100 // as more is said of each
	byHand      = "by hand"
	tooBusy     = "it is just being worked on; try again"
)

// Steer implements Admin. What a worker has is only removed: the attempt goes on,
// and its outcome is of no consequence. Everything that is done to a page is
// durable in one transaction, or an error says that none of it is.
func (q *Queue) Steer(ctx context.Context, s Steer) (Steered, error) {
	if err := q.checkSteer(ctx, &s); err != nil {
		return Steered{}, err
	}
	limit := min(s.Limit, maxSteer)
	if s.DryRun {
		limit = min(limit, maxSteerDry)
	}
	query, err := q.query(s.Filter, false)
	if err != nil {
		return Steered{}, err
	}
	query.After, query.Limit = s.After, limit
	q.holdMu.Lock()
	defer q.holdMu.Unlock()
	chosen, err := q.store.Find(ctx, query)
	if err != nil || len(chosen) == 0 {
		return Steered{}, err
	}
	out := Steered{Last: chosen[len(chosen)-1].ID, More: len(chosen) == limit}
	p := q.seize(chosen, &s)
	defer q.yield(p)
	// As they are now that nothing else changes them.
	var ids []string
	for _, r := range chosen {
		ids = append(ids, r.ID.String())
	}
	rows, err := q.reread(ctx, query, ids)
	if err != nil {
		return out, err
	}
	if err := q.plan(ctx, &s, p, rows); err != nil {
		return out, err
	}
	out.Refused = p.refused
	out.Count = len(p.rows)
	if s.DryRun {
		out.Changed = q.listed(p.rows)
		return out, nil
	}
	err = q.carryOut(ctx, &s, p)
	p.known = err == nil
	return out, err
}

func (q *Queue) reread(ctx context.Context, query Query, ids []string) ([]Stored, error) {
	query.After, query.Limit, query.IDs = EnvelopeID{}, maxSteer, ids
	return q.store.Find(ctx, query)
}

func (q *Queue) checkSteer(ctx context.Context, s *Steer) error {
	if s.Limit < 1 {
		return fmt.Errorf("%w: change %d envelopes", rpc.ErrInvalid, s.Limit)
	}
	s.Reason = address.OneLine(s.Reason, maxReason)
	switch s.Op {
	case OpRetry, OpHold, OpRelease, OpRemove, OpBounce:
		return nil
	case OpRedirect:
		return q.checkRedirect(ctx, s)
	}
	return fmt.Errorf("%w: %.20q", rpc.ErrInvalid, s.Op)
}

// page is what is done to the envelopes of one Steer.
type page struct {
	pinned  map[EnvelopeID]Lane // in no memory, and kept from it
	taken   []*item             // in memory, taken out of their turn
	busy    map[EnvelopeID]string
	due     map[EnvelopeID]bool // in memory, so that a retry changes nothing
	rows    []Stored            // what is changed
	changed map[EnvelopeID]bool // likewise
	refused []Refusal
	change  *Change
	done    bool // change is durable
	known   bool // what the store has of the envelopes is known
	was     map[EnvelopeID]schedule
	will    map[EnvelopeID]schedule // of those that are changed, and are there afterwards
	fresh   map[string]*redirection
	urge    map[string]struct{} // destinations of what is made due by hand
}

// schedule is when an envelope is due, unless it is held.
type schedule struct {
	next time.Time
	held bool
}

// schedule returns when an envelope is due as the page leaves it; false: it is gone.
// What is not known may be due at any time.
func (p *page) schedule(id EnvelopeID) (schedule, bool) {
	was, read := p.was[id]
	if !p.known || !read {
		return schedule{next: time.UnixMilli(0)}, true
	}
	if !p.changed[id] {
		return was, true
	}
	will, there := p.will[id]
	return will, there
}

func (p *page) refuse(id EnvelopeID, why string) {
	p.refused = append(p.refused, Refusal{id, address.OneLine(why, maxReason), p.busy[id] != ""})
}

// seize keeps envelopes from being tried while they are changed: what is in memory
// loses its turn, and what is not does not get there. A dry run only looks.
func (q *Queue) seize(rows []Stored, s *Steer) *page {
	p := &page{
		busy: make(map[EnvelopeID]string), due: make(map[EnvelopeID]bool),
		pinned: make(map[EnvelopeID]Lane), change: &Change{}, fresh: make(map[string]*redirection),
		changed: make(map[EnvelopeID]bool), was: make(map[EnvelopeID]schedule), will: make(map[EnvelopeID]schedule),
		urge: make(map[string]struct{}),
	}
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := make(map[EnvelopeID]*item)
	for i := range rows {
		id := rows[i].ID
		it := a.items[id]
		_, pinned := a.pinned[id]
		switch {
		case pinned, it == nil && rows[i].Claimed: // by another; or on its way into memory
			p.busy[id] = tooBusy
		case it != nil && s.Op == OpRemove && !s.Idle: // see forget
		case it != nil && it.job != nil:
			p.busy[id] = "it is being delivered at the moment"
		case it != nil && s.Op == OpRetry:
			p.due[id] = true
		case s.DryRun:
		case it == nil:
			a.pinned[id] = false
			p.pinned[id] = rows[i].Lane
		default:
			p.busy[id] = tooBusy // unless it waits for its turn
			wanted[id] = it
		}
	}
	if len(wanted) > 0 {
		p.taken = q.takeOut(func(it *item) bool { return wanted[it.env.ID] == it })
	}
	for _, it := range p.taken {
		delete(p.busy, it.env.ID)
	}
	return p
}

// yield gives back what seize took. What was changed, or passed over, is read again
// from the store when it is due.
func (q *Queue) yield(p *page) {
	a := q.active
	a.mu.Lock()
	for id, lane := range p.pinned {
		missed := a.pinned[id] || a.scanning || p.changed[id] || !p.known
		delete(a.pinned, id)
		if a.scanning {
			a.left[id] = struct{}{} // the answer may show it as it was
		}
		if s, there := p.schedule(id); missed && there && !s.held {
			q.stored(lane, s.next)
		}
	}
	for _, it := range p.taken {
		if !p.changed[it.env.ID] || !p.done {
			q.route(it)
			continue
		}
		a.handed(it.msg)
		q.leave(it)
		if s, there := p.schedule(it.env.ID); there && !s.held {
			q.stored(it.lane, s.next)
		}
	}
	a.mu.Unlock()
	q.kick()
}

// plan decides what becomes of each envelope.
func (q *Queue) plan(ctx context.Context, s *Steer, p *page, rows []Stored) error {
	p.change.DueAt = time.Now().Truncate(time.Millisecond)
	for i := range rows {
		p.was[rows[i].ID] = schedule{rows[i].Next, rows[i].Hold != 0}
	}
	for i := range rows {
		r := &rows[i]
		why := p.busy[r.ID]
		if why == "" {
			var err error
			if why, err = q.planOne(ctx, s, p, r); err != nil {
				return err
			}
		}
		if why != "" {
			p.refuse(r.ID, why)
			continue
		}
		p.rows = append(p.rows, *r)
		p.changed[r.ID] = true
	}
	return nil
}

// planOne adds to a page's change what is done to one envelope, or says why it is
// left alone.
func (q *Queue) planOne(ctx context.Context, s *Steer, p *page, r *Stored) (why string, err error) {
	switch {
	case s.Op == OpRemove:
		p.change.Remove = append(p.change.Remove, r.ID)
		return "", nil
	case p.due[r.ID] && (r.Hold != 0 || r.Next.After(p.change.DueAt)):
		// What was decided about it is durable, and it is about to leave the memory.
		p.busy[r.ID] = tooBusy
		return tooBusy, nil
	case p.due[r.ID]:
		return "", nil
	}
	if note, _ := parseNotice(r.Notice); note != nil && s.Op != OpRetry {
		return "only the report to its sender is left of it", nil
	}
	held, standing := q.heldBy(r)
	switch s.Op {
	case OpRetry:
		if held != "" && r.Hold != damaged {
			return held, nil
		}
		p.makeDue(r)
	case OpRelease:
		switch {
		case standing:
			return held + ": that is released by itself", nil
		case r.Hold == 0:
			return "it is not held", nil
		case s.Own != "" && !q.heldWith(r, s.Own):
			return "it is not held for that", nil
		case s.Keep:
			u := r.update()
			u.Hold = 0
			p.will[r.ID] = schedule{next: r.Next}
			p.change.Update = append(p.change.Update, u)
			return "", nil
		}
		p.makeDue(r)
	case OpHold:
		if r.Hold != 0 {
			return held, nil
		}
		p.change.Update = append(p.change.Update, r.update()) // with the id of the hold, once there is one
	case OpBounce:
		return p.bounce(s, r), nil
	default:
		return q.planRedirect(ctx, s, p, r)
	}
	return "", nil
}

func (p *page) makeDue(r *Stored) {
	p.change.Due = append(p.change.Due, r.ID)
	if r.Relay {
		p.urge[r.Destination] = struct{}{}
	}
	p.will[r.ID] = schedule{next: p.change.DueAt}
	r.Next = p.change.DueAt
}

// update returns the schedule of an envelope as it is.
func (s *Stored) update() Update {
	return Update{
		ID: s.ID, Attempts: s.Attempts, Next: s.Next, LastError: s.LastError, Warned: s.Warned, Hold: s.Hold, Notice: s.Notice,
	}
}

// heldBy says what holds an envelope, and whether that is about other mail, too.
func (q *Queue) heldBy(r *Stored) (why string, standing bool) {
	q.active.mu.Lock()
	defer q.active.mu.Unlock()
	e := q.why(r)
	if !e.Held || r.Hold == damaged {
		return e.HeldFor, false
	}
	for _, h := range q.holds {
		if h.ID == r.Hold && h.Kind == HoldHand {
			return e.HeldFor, false
		}
	}
	return e.HeldFor, true
}

// heldWith reports whether an envelope is held by hand with a reason.
func (q *Queue) heldWith(r *Stored, reason string) bool {
	q.active.mu.Lock()
	defer q.active.mu.Unlock()
	return q.handHeld(r, reason)
}

// handHeld is heldWith. Needs active.mu.
func (q *Queue) handHeld(r *Stored, reason string) bool {
	i := q.findHold(HoldHand, reason)
	return i >= 0 && r.Hold == q.holds[i].ID
}

// bounce fails an envelope: only the report is left of it.
func (p *page) bounce(s *Steer, r *Stored) (why string) {
	switch {
	case r.Message.Sender == "":
		return "it has no sender who could be told; remove it instead"
	case !r.wants("FAILURE"):
		return "its sender does not want to be told; remove it instead"
	}
	text := s.Reason
	if text == "" {
		text = "returned by the postmaster of this server"
	}
	n := &notice{Kind: kindFailed, Enhanced: "5.0.0", Text: text, At: p.change.DueAt}
	u := r.update()
	u.Next, u.Hold, u.Notice, u.LastError = p.change.DueAt, 0, n.encode(), address.OneLine(noticeText(n), maxErrorText)
	r.Next = u.Next
	p.will[r.ID] = schedule{next: u.Next}
	p.change.Update = append(p.change.Update, u)
	return ""
}

// carryOut makes a page durable, and the memory follows.
func (q *Queue) carryOut(ctx context.Context, s *Steer, p *page) error {
	if len(p.rows) == 0 {
		return nil
	}
	if s.Op == OpHold {
		h, err := q.handHold(p.change, s.Reason)
		if err != nil {
			return err
		}
		defer func() {
			if p.done {
				q.keepHold(h)
			}
		}()
	}
	if !s.unurged {
		q.active.mu.Lock()
		q.active.urge(p.urge) // before it may be taken
		q.active.mu.Unlock()
	}
	if err := q.commits.do(ctx, p.change); err != nil {
		return err
	}
	p.done = true
	if s.Op == OpRemove {
		q.count.dropped.Add(int64(p.change.Affected))
		q.forget(p.rows)
	}
	for _, e := range p.change.Attach {
		q.noteStored(&e.NewEnvelope)
	}
	q.logSteered(s, p)
	return q.endHolds(ctx, s, p)
}

func (q *Queue) noteStored(e *NewEnvelope) {
	q.active.mu.Lock()
	defer q.active.mu.Unlock()
	if e.Next.After(time.Now()) { // reading for its destination would not find it
		q.stored(e.Lane, e.Next)
		return
	}
	q.waits(e.Destination, e.Lane, e.Next)
}

// logSteered writes a line for the page, and one for each envelope that ends by it.
func (q *Queue) logSteered(s *Steer, p *page) {
	switch s.Op {
	case OpRemove, OpBounce:
		for i := range p.rows {
			q.logEnd("queue "+string(s.Op), p.rows[i].Message, &p.rows[i].Envelope, slog.String("reason", s.Reason))
			result := eventlog.Removed
			if s.Op == OpBounce {
				result = eventlog.Failed
			}
			q.recordEnd(p.rows[i].Message, &p.rows[i].Envelope, result, &notice{Text: s.Reason})
		}
	case OpRedirect:
		for i := range p.rows {
			q.logEnd("queue redirect", p.rows[i].Message, &p.rows[i].Envelope, slog.String("action", s.Action), slog.String("recipient", s.To))
			q.recordEnd(p.rows[i].Message, &p.rows[i].Envelope, eventlog.Removed, &notice{Text: "redirected"})
		}
		for i := range p.change.Attach {
			a := &p.change.Attach[i]
			q.recordEnvelopes(&NewMessage{Message: *a.Message, Envelopes: []NewEnvelope{a.NewEnvelope}})
		}
	default:
		q.log.Info("queue "+string(s.Op), "envelopes", len(p.rows), "reason", s.Reason)
	}
}

// handHold gives a page's updates a hold of their own reason, in the same
// transaction. Needs holdMu.
func (q *Queue) handHold(c *Change, reason string) (*Hold, error) {
	h := Hold{Kind: HoldHand, Value: reason, Created: c.DueAt}
	if h.Value == "" {
		h.Value = byHand
	}
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := q.findHold(h.Kind, h.Value); i >= 0 {
		h = *q.holds[i]
	} else {
		if q.countHolds() >= maxHolds {
			return nil, fmt.Errorf("%w: there are %d holds already", rpc.ErrInvalid, maxHolds)
		}
		h.ID = max(q.lastHold+1, firstHold)
		c.Hold = []Hold{h}
	}
	for i := range c.Update {
		c.Update[i].Hold = h.ID
	}
	return &h, nil
}

// keepHold notes a hold that is durable. Needs holdMu.
func (q *Queue) keepHold(h *Hold) {
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	if q.findHold(h.Kind, h.Value) < 0 {
		q.holds = append(q.holds, h)
		q.lastHold = max(q.lastHold, h.ID)
	}
}

// endHolds ends holds by hand that hold nothing any more. Needs holdMu.
func (q *Queue) endHolds(ctx context.Context, s *Steer, p *page) error {
	if s.Op == OpHold || s.Op == OpRetry {
		return nil
	}
	ids := make(map[int64]bool)
	for i := range p.rows {
		if p.rows[i].Hold >= firstHold {
			ids[p.rows[i].Hold] = true
		}
	}
	for id := range ids { // counting all that is held, page by page, would take ever longer
		kept, err := q.store.Keeps(ctx, id)
		if err != nil {
			return err
		}
		if kept {
			delete(ids, id)
		}
	}
	return q.dropHolds(ctx, func(h *Hold) bool { return ids[h.ID] })
}

// dropHolds ends the holds by hand that f names. Needs holdMu.
func (q *Queue) dropHolds(ctx context.Context, f func(*Hold) bool) error {
	change := &Change{DueAt: time.Now()}
	var kept []*Hold
	a := q.active
	a.mu.Lock()
	for _, h := range q.holds {
		if h.Kind == HoldHand && f(h) {
			change.Release = append(change.Release, h.ID)
		} else {
			kept = append(kept, h)
		}
	}
	a.mu.Unlock()
	if len(change.Release) == 0 {
		return nil
	}
	if err := q.commits.do(ctx, change); err != nil && !q.endedAll(ctx, change, err) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	q.holds = kept
	return nil
}
