package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/internal/rpc"
)

// HoldKind is what a hold is about.
type HoldKind string

// The kinds of holds.
const (
	HoldDestination HoldKind = "destination" // mail to a domain
	HoldSender      HoldKind = "sender"      // mail from an address, a domain, or "<>"
	HoldRule        HoldKind = "rule"        // mail of an action
	HoldRoute       HoldKind = "route"       // relayed mail for a domain, or over a server
	HoldKey         HoldKind = "key"         // mail whose key is missing, by the key's id: the queue's own
	HoldEncoding    HoldKind = "encoding"    // mail whose body a newer version stored, by how it did: the queue's own
	HoldHand        HoldKind = "hand"        // only the envelopes that Steer held; its value says why
)

// Hold keeps mail from being delivered, also such as comes later, until it is
// released. Mail that is held does not expire: its time stands still while a hold
// keeps it back, and is ReleaseGrace at least afterwards.
type Hold struct {
	ID      int64     `json:"id"` // chosen by the queue
	Kind    HoldKind  `json:"kind"`
	Value   string    `json:"value"`  // lower case; a domain in A-labels
	Reason  string    `json:"reason"` // one line, may be empty
	Created time.Time `json:"created"`
}

// HeldCount is a hold and how many envelopes came due and are kept back by it.
type HeldCount struct {
	Hold
	Held int64 `json:"held"`
}

const (
	damagedText = "its body is damaged"
	damaged     = 1 // what Update.Hold is for mail with a damaged body
	firstHold   = 2
	maxHolds    = 1000
	maxReason   = 200
	maxRoute    = 253 + len(":65535") // bytes, RFC 1035 section 3.1
	suspendWait = 2 * time.Second     // after the store failed
)

// String says why mail is held.
func (h *Hold) String() string {
	if h.Kind == HoldHand {
		return strings.TrimSuffix("held by hand: "+h.Value, ": "+byHand)
	}
	text := string(h.Kind) + " " + h.Value
	switch h.Kind {
	case HoldRoute:
		text += " paused"
	case HoldKey:
		text += " missing"
	case HoldEncoding:
		text += " unknown"
	default:
		text += " held"
	}
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	return text
}

// normal checks a hold that somebody asks for, and brings it into the one form
// that is stored.
func (h Hold) normal() (Hold, error) {
	value := strings.ToLower(strings.TrimSpace(h.Value))
	switch h.Kind {
	case HoldDestination:
		if value = normalDomain(value); strings.ContainsAny(value, "@ ") {
			return h, fmt.Errorf("%w: hold of destination %.60q, which is no domain", rpc.ErrInvalid, h.Value)
		}
	case HoldRoute:
		if value = normalDomain(value); len(value) > maxRoute {
			return h, fmt.Errorf("%w: pause of %.60q, which is no domain and no server", rpc.ErrInvalid, h.Value)
		}
	case HoldSender:
		value = normalSender(value)
	case HoldRule:
		value = strings.TrimSpace(h.Value)
	case HoldEncoding:
		value = h.Value
	case HoldKey:
	default:
		return h, fmt.Errorf("%w: hold of kind %.20q", rpc.ErrInvalid, h.Kind)
	}
	if value == "" || len(value) > maxText || !oneLine(value) {
		return h, fmt.Errorf("%w: hold of %s %.60q", rpc.ErrInvalid, h.Kind, h.Value)
	}
	h.Value, h.Reason = value, address.OneLine(h.Reason, maxReason)
	return h, nil
}

// normalDomain returns a domain in A-labels, and what is none as it is.
func normalDomain(s string) string {
	return strings.TrimSuffix(address.Labels(s), ".")
}

// normalSender is the form of "<>", an address or a domain.
func normalSender(s string) string {
	if s == "<>" {
		return s
	}
	local, domain := address.Split(strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">"))
	switch {
	case domain == "": // that is one without "@"
		return normalDomain(local)
	case local == "":
		return normalDomain(domain)
	}
	return local + "@" + normalDomain(domain)
}

// subject is what holds look at in an envelope.
type subject struct {
	env                       *Envelope
	domain                    string // of the recipient
	sender, local, fromDomain string
}

func newSubject(e *Envelope, sender string) subject {
	local, _ := address.Split(sender)
	return subject{env: e, domain: domainOf(e.Address), sender: sender, local: local, fromDomain: domainOf(sender)}
}

// holds reports whether h is about an envelope. That a route leads over a server
// which is paused is for the relay worker to say.
func (h *Hold) holds(s *subject) bool {
	switch h.Kind {
	case HoldDestination:
		return s.domain == h.Value
	case HoldRoute:
		return s.env.Relay && s.domain == h.Value
	case HoldRule:
		return s.env.Action == h.Value
	case HoldKey, HoldEncoding, HoldHand: // that shows when a body is read, or in the envelope
		return false
	}
	if s.sender == "" {
		return h.Value == "<>"
	}
	local, domain := address.Split(h.Value)
	if domain == "" { // a domain alone
		return s.fromDomain == h.Value
	}
	return s.fromDomain == domain && strings.EqualFold(s.local, local)
}

// About reports whether h keeps back mail from a sender to an envelope's address, by
// its action. A pause of a server keeps back what goes over that: see Over.
func (h *Hold) About(e *Envelope, sender string) bool {
	s := newSubject(e, sender)
	return h.holds(&s)
}

// holdOf returns the first hold about an envelope, or nil. Needs active.mu.
func (q *Queue) holdOf(e *Envelope, sender string) *Hold {
	if len(q.holds) == 0 {
		return nil
	}
	s := newSubject(e, sender)
	for _, h := range q.holds {
		if h.holds(&s) {
			return h
		}
	}
	return nil
}

// paused returns the holds of routes, for workers. Needs active.mu.
func (q *Queue) paused() []Hold {
	var list []Hold
	for _, h := range q.holds {
		if h.Kind == HoldRoute {
			list = append(list, *h)
		}
	}
	return list
}

// pausedWeight is about what paused takes on the wire. Needs active.mu.
func (q *Queue) pausedWeight() int {
	n := 0
	for _, h := range q.holds {
		if h.Kind == HoldRoute {
			n += 80 + len(h.Value) + len(h.Reason)
		}
	}
	return n
}

// Hold implements Admin.
func (q *Queue) Hold(ctx context.Context, want Hold) (Hold, error) {
	h, err := want.normal()
	if err != nil {
		return h, err
	}
	q.holdMu.Lock()
	defer q.holdMu.Unlock()
	h.Created = time.Now().Truncate(time.Millisecond)
	a := q.active
	a.mu.Lock()
	there := q.findHold(h.Kind, h.Value) >= 0
	a.mu.Unlock()
	if h.Kind == HoldRule && !there {
		if err := q.actions.missing(ctx, h.Value); err != nil {
			return Hold{}, err
		}
	}
	a.mu.Lock()
	// A number is used once, even if it is not stored: after some errors it is.
	q.lastHold = max(q.lastHold+1, firstHold)
	h.ID = q.lastHold
	if i := q.findHold(h.Kind, h.Value); i >= 0 {
		h.ID, h.Created = q.holds[i].ID, q.holds[i].Created
	} else if !h.Kind.own() && q.countHolds() >= maxHolds {
		err = fmt.Errorf("%w: there are %d holds already", rpc.ErrInvalid, maxHolds)
	}
	a.mu.Unlock()
	if err == nil {
		err = q.commits.do(ctx, &Change{Hold: []Hold{h}})
	}
	if err != nil {
		return Hold{}, err
	}
	a.mu.Lock()
	if i := q.findHold(h.Kind, h.Value); i >= 0 {
		q.holds[i] = &h
	} else {
		q.holds = append(q.holds, &h)
	}
	q.sweep(&h)
	a.mu.Unlock()
	q.log.Info("queue hold", "kind", string(h.Kind), "value", h.Value, "reason", h.Reason)
	return h, nil
}

// own reports whether a hold is the queue's own. There are as many as there are keys
// and versions, whatever else is held: mail that needs one must not stay in memory.
func (k HoldKind) own() bool { return k == HoldKey || k == HoldEncoding }

// countHolds counts the holds that somebody asked for. Needs active.mu.
func (q *Queue) countHolds() int {
	n := 0
	for _, h := range q.holds {
		if !h.Kind.own() {
			n++
		}
	}
	return n
}

// findHold returns the place of a hold in the list, or -1. Needs active.mu.
func (q *Queue) findHold(kind HoldKind, value string) int {
	return slices.IndexFunc(q.holds, func(h *Hold) bool { return h.Kind == kind && h.Value == value })
}

// sweep takes what waits in memory and is held from now on. Needs active.mu.
func (q *Queue) sweep(h *Hold) {
	q.suspend(q.takeOut(func(it *item) bool {
		s := newSubject(&it.env, it.msg.Sender)
		return h.holds(&s)
	}), h)
}

// takeOut takes items that wait for their turn out of it. Needs active.mu.
func (q *Queue) takeOut(wanted func(*item) bool) []*item {
	var taken []*item
	for _, d := range q.active.destinations {
		for l := range d.shares {
			d.shares[l].ready = slices.DeleteFunc(d.shares[l].ready, func(it *item) bool {
				if it.dropped || !wanted(it) {
					return false
				}
				taken = append(taken, it)
				return true
			})
		}
	}
	for _, p := range q.active.pools {
		p.clear()
	}
	return taken
}

// suspend keeps items back that no worker has. It is no attempt. Needs active.mu.
func (q *Queue) suspend(items []*item, h *Hold) {
	if len(items) == 0 {
		return
	}
	change := &Change{}
	for _, it := range items {
		q.active.handed(it.msg)
		change.Update = append(change.Update, Update{
			ID: it.env.ID, Attempts: it.env.Attempts, Next: it.env.Next,
			LastError: it.env.LastError, Warned: it.warned, Notice: it.last.encode(), Hold: h.ID,
		})
	}
	q.goWhile(func() {
		for {
			err := q.commits.do(context.WithoutCancel(q.ctx), change)
			if err == nil {
				break
			}
			q.log.Error("queue hold not stored", "error", err)
			if !sleep(q.ctx, suspendWait) {
				return // found again at the next start
			}
		}
		q.active.mu.Lock()
		for _, it := range items {
			q.leave(it)
			q.stored(it.lane, it.env.Next) // in case it was released meanwhile
		}
		q.active.mu.Unlock()
		q.kick()
	})
}

// Release implements Admin. What was kept back is due at once.
func (q *Queue) Release(ctx context.Context, kind HoldKind, value string) (int, error) {
	want, err := Hold{Kind: kind, Value: value}.normal()
	if err != nil {
		return 0, err
	}
	q.holdMu.Lock()
	defer q.holdMu.Unlock()
	a := q.active
	a.mu.Lock()
	i := q.findHold(want.Kind, want.Value)
	if i < 0 {
		a.mu.Unlock()
		return 0, fmt.Errorf("hold of %s %s: %w", want.Kind, want.Value, rpc.ErrNotFound)
	}
	h := q.holds[i]
	q.holds = slices.Delete(q.holds, i, i+1) // before its row goes: nothing is held by it any more
	a.mu.Unlock()
	change := &Change{Release: []int64{h.ID}, DueAt: time.Now()}
	if err := q.commits.do(ctx, change); err != nil && !q.endedAll(ctx, change, err) {
		a.mu.Lock()
		q.holds = append(q.holds, h)
		a.mu.Unlock()
		return 0, err
	}
	a.mu.Lock()
	q.storedAny(change.DueAt)
	a.mu.Unlock()
	q.log.Info("queue release", "kind", string(h.Kind), "value", h.Value, "envelopes", change.Affected)
	return change.Affected, nil
}

// endedAll reports whether the holds that a change releases are gone from the store
// although it failed: after some errors it is durable all the same. A hold that only
// the memory has would take back what the store has as due, without end.
func (q *Queue) endedAll(ctx context.Context, c *Change, why error) bool {
	list, err := q.store.Holds(context.WithoutCancel(ctx))
	if err != nil || slices.ContainsFunc(list, func(h Hold) bool { return slices.Contains(c.Release, h.ID) }) {
		return false
	}
	q.log.Warn("queue release is durable, though it failed", "error", why)
	return true
}

// Holds implements Admin.
func (q *Queue) Holds(ctx context.Context) ([]HeldCount, error) {
	counts, err := q.store.Held(ctx)
	if err != nil {
		return nil, err
	}
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]HeldCount, len(q.holds))
	for i, h := range q.holds {
		list[i] = HeldCount{Hold: *h, Held: counts[h.ID]}
	}
	return list, nil
}

// why says in an envelope what holds it. Needs active.mu.
func (q *Queue) why(r *Stored) Envelope {
	e := r.Envelope
	if r.Hold == damaged {
		e.Held, e.HeldFor = true, damagedText
		return e
	}
	if note, _ := parseNotice(r.Notice); note != nil {
		return e // what is left is the report
	}
	h := q.holdOf(&e, r.Message.Sender)
	if i := slices.IndexFunc(q.holds, func(h *Hold) bool { return h.ID == r.Hold }); i >= 0 {
		h = q.holds[i]
	}
	if h != nil {
		e.Held, e.HeldFor = true, h.String()
	}
	return e
}

// holdsFor returns the holds whose reason contains one of texts.
func (q *Queue) holdsFor(texts []string) []int64 {
	ids := []int64{}
	add := func(id int64, why string) {
		if slices.ContainsFunc(texts, func(t string) bool { return containsGlob(why, t) }) {
			ids = append(ids, id)
		}
	}
	add(damaged, damagedText)
	q.active.mu.Lock()
	defer q.active.mu.Unlock()
	for _, h := range q.holds {
		add(h.ID, h.String())
	}
	return ids
}

// containsGlob reports whether a text has a part that looks like glob, in which '*'
// stands for any characters; case does not matter.
func containsGlob(text, glob string) bool {
	text = strings.ToLower(text)
	for part := range strings.SplitSeq(strings.ToLower(glob), "*") {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}

// loadHolds reads what was held before this start.
func (q *Queue) loadHolds(ctx context.Context) error {
	list, err := q.store.Holds(ctx)
	if err != nil {
		return err
	}
	for i := range list {
		q.holds = append(q.holds, &list[i])
		q.lastHold = max(q.lastHold, list[i].ID)
	}
	return nil
}

// pausedBy takes back an item because its worker says that its route is paused.
// Needs active.mu.
func (q *Queue) pausedBy(it *item, id int64) {
	i := slices.IndexFunc(q.holds, func(h *Hold) bool { return h.ID == id && h.Kind == HoldRoute })
	if i < 0 || it.dropped { // resumed meanwhile, or the worker errs
		q.giveBack(it)
		return
	}
	q.active.reclaim(it)
	q.suspend([]*item{it}, q.holds[i])
}
