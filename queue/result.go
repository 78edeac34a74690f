package queue

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"tabard/internal/address"
)

const (
	maxErrorText  = 500 // bytes of LastError
	maxNoticeText = 900 // keeps a field below the 998 of RFC 5322 section 2.1.1
	maxDeaths     = 3   // workers that end with an envelope, so many, count as an attempt at it
	settlePause   = 2 * time.Second
)

// The kinds of notice, which are the actions of RFC 3464 section 2.3.3.
const (
	kindFailed    = "failed"
	kindDelayed   = "delayed"
	kindDelivered = "delivered"
	kindRelayed   = "relayed"
	kindExpanded  = "expanded"
)

// statusTooLate is that of a message that was to be delivered by a time or returned
// (RFC 2852): unlike other mail that expires, sending it again cannot succeed.
const statusTooLate = "5.4.7"

// notice is an outcome that the sender is still to be told of. It is stored with
// the envelope until the report is. Without a kind it is what the last attempt said,
// for the report that may be due when the envelope expires.
type notice struct {
	Kind     string    `json:"kind,omitempty"`
	Enhanced string    `json:"enhanced,omitempty"`
	Text     string    `json:"text,omitempty"` // one line
	Code     int       `json:"code,omitempty"`
	Remote   string    `json:"remote,omitempty"`
	At       time.Time `json:"at"`
	Expired  bool      `json:"expired,omitempty"`
	Cause    string    `json:"cause,omitempty"` // of an expired one: Enhanced of the last attempt
	Tries    int       `json:"tries,omitempty"` // to report it
}

func newNotice(kind string, r *Result) *notice {
	return &notice{Kind: kind, Enhanced: r.Enhanced, Code: r.Code, At: time.Now(), Text: r.Text, Remote: r.Remote}
}

// checked is a result as it may be kept: on one line, bounded, and with codes that
// are some. Workers pass on what strangers say.
func checked(r Result) Result {
	if r.Code < 200 || r.Code > 599 {
		r.Code = 0
	}
	if !validStatus(r.Enhanced) {
		r.Enhanced = ""
	}
	r.Text, r.Remote = address.OneLine(r.Text, maxNoticeText), address.OneLine(r.Remote, maxText)
	return r
}

// expired is the notice of an envelope whose time is over. The class is that of
// a persistent transient failure (RFC 3463 section 2): sending again may succeed.
func expired(it *item) *notice {
	n := &notice{Kind: kindFailed, Enhanced: "4.4.7", Text: it.env.LastError, At: time.Now(), Expired: true}
	if by := &it.msg.DeliverBy; !by.Notify && by.missed(n.At) {
		n.Enhanced = statusTooLate
	}
	if last := it.last; last != nil {
		n.Code, n.Cause, n.Text, n.Remote, n.At = last.Code, last.Enhanced, last.Text, last.Remote, last.At
	}
	return n
}

// cause is the code of what went wrong in the end.
func (n *notice) cause() string {
	if n.Expired {
		return n.Cause
	}
	return n.Enhanced
}

// reply is what was said, with its codes.
func (n *notice) reply() string { return replyText(n.Code, n.cause(), n.Text) }

func (n *notice) encode() string {
	if n == nil {
		return ""
	}
	b, err := json.Marshal(n)
	if err != nil { // plain fields: it cannot
		return ""
	}
	return string(b)
}

// parseNotice reads what encode wrote: a notice, or what the last attempt said. One
// that does not parse was written by a hand: the envelope is simply tried again.
func parseNotice(s string) (note, last *notice) {
	if s == "" {
		return nil, nil
	}
	n := &notice{}
	switch err := json.Unmarshal([]byte(s), n); {
	case err != nil:
		return nil, nil
	case n.Kind == "":
		return nil, n
	}
	return n, nil
}

// settlement is results on their way to the store.
type settlement struct {
	change *Change
	events []event
	told   time.Time // by a worker, which has logged the attempts itself; zero: by the queue
}

// event is one result and what it means.
type event struct {
	it     *item
	result Result
	note   *notice // to be reported
	last   *notice // what a deferral said
	update *Update // nil: the envelope is removed
	warn   bool    // the sender is told of the delay
}

// settlement decides what results mean. Needs active.mu.
func (q *Queue) settlement(items []*item, results []Result) *settlement {
	s := &settlement{change: &Change{}}
	now := time.Now()
	for i, it := range items {
		e := q.decide(it, &results[i], now)
		switch {
		case e.update != nil:
			s.change.Update = append(s.change.Update, *e.update)
		default:
			s.change.Remove = append(s.change.Remove, it.env.ID)
		}
		s.events = append(s.events, e)
	}
	return s
}

// decide says what one result means for its envelope.
func (q *Queue) decide(it *item, r *Result, now time.Time) event {
	e := event{it: it, result: checked(*r)}
	r = &e.result
	switch r.Outcome {
	case Deferred:
		q.deferred(&e, now)
	case Delivered:
		switch {
		case it.msg.Sender == "":
		case it.tracesTo(r):
			e.note = newNotice(kindRelayed, r)
		case !it.env.wants("SUCCESS") || r.Relayed:
		case it.env.Relay: // to a server that does not report (RFC 3461 section 5.2.2)
			e.note = newNotice(kindRelayed, r)
		default:
			e.note = newNotice(kindDelivered, r)
		}
	default:
		if it.env.wants("FAILURE") && it.msg.Sender != "" {
			e.note = newNotice(kindFailed, r)
		}
	}
	if e.note != nil {
		e.update = q.owed(it, e.note, now)
	}
	return e
}

// tracesTo reports whether the sender is to be told that a message with a DeliverBy
// was relayed: because it wants that of every server (by-trace), or because the next
// one will not notify it when the time has passed (RFC 2852 section 4.1.4).
func (it *item) tracesTo(r *Result) bool {
	by := &it.msg.DeliverBy
	return it.env.Relay && !by.Time.IsZero() && it.env.Notify != "NEVER" && (by.Trace || by.Notify && !r.KeepsTime)
}

func (q *Queue) deferred(e *event, now time.Time) {
	it := e.it
	env := it.env
	env.Attempts++
	env.LastError = address.OneLine(errorText(&e.result), maxErrorText)
	e.last = newNotice("", &e.result)
	e.update = &Update{ID: env.ID, Attempts: env.Attempts, LastError: env.LastError, Warned: it.warned, Notice: e.last.encode()}
	if it.over(now) {
		// The scan or the next step finds it expired.
		e.update.Next = now
	} else {
		e.update.Next = q.nextAttempt(&env, it.msg.DeliverBy, now, e.result.NotBefore)
		e.warn = q.warns(it, now)
	}
	e.update.Attempt = &PastAttempt{
		ID: env.ID, Number: env.Attempts, At: now, Remote: e.result.Remote, Result: env.LastError, Next: e.update.Next,
	}
}

// owed keeps an envelope of which only the report is left.
func (q *Queue) owed(it *item, n *notice, now time.Time) *Update {
	return &Update{
		ID: it.env.ID, Attempts: it.env.Attempts + 1, Next: now, Warned: it.warned,
		LastError: address.OneLine(noticeText(n), maxErrorText), Notice: n.encode(),
	}
}

func errorText(r *Result) string { return replyText(r.Code, r.Enhanced, r.Text) }

func noticeText(n *notice) string {
	if !n.Expired {
		return n.reply()
	}
	text := n.Enhanced + " delivery time expired"
	if said := n.reply(); said != "" {
		text += "; last error: " + said
	}
	return text
}

// replyText joins the parts of a reply that are there. Replies that bring their
// own codes keep them once.
func replyText(code int, enhanced, text string) string {
	var parts []string
	if code > 0 {
		num := strconv.Itoa(code)
		text = strings.TrimPrefix(text, num+" ")
		parts = append(parts, num)
	}
	if enhanced != "" {
		text = strings.TrimPrefix(text, enhanced+" ")
		parts = append(parts, enhanced)
	}
	if text != "" {
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

// settle makes results durable. When it cannot, it says so, and goes on trying
// by itself: what was delivered must not be delivered again.
func (q *Queue) settle(ctx context.Context, s *settlement) error {
	err := q.commits.do(context.WithoutCancel(ctx), s.change)
	if err == nil {
		q.settled(s)
		return nil
	}
	q.notStored(err, 1)
	q.goWhile(func() { q.settleLater(s) })
	return err
}

func (q *Queue) settleLater(s *settlement) {
	for sleep(q.ctx, settlePause) {
		err := q.commits.do(q.ctx, s.change)
		if err == nil {
			q.notStored(nil, -1)
			q.settled(s)
			return
		}
		q.notStored(err, 0)
	}
}

// settled acts on what is durable now.
func (q *Queue) settled(s *settlement) {
	told := !s.told.IsZero()
	for i := range s.events {
		q.logResult(&s.events[i], told)
		if told {
			q.went(&s.events[i], s.told)
		}
		q.logUntold(&s.events[i])
		q.count.result(&s.events[i])
		q.numbers.settled(&s.events[i])
		q.recordSettled(&s.events[i], told)
	}
	a := q.active
	a.mu.Lock()
	for i := range s.events {
		e := &s.events[i]
		key := e.it.dest.key
		if ids := a.recovery.note(e.it, &e.result, q.rules.Load().MaxDeferred); len(ids) > 0 {
			q.goWhile(func() { q.recovered(q.ctx, key, ids) })
		}
		q.follow(e)
	}
	a.mu.Unlock()
	q.kick()
}

// follow brings the memory up to date with an event. Needs active.mu.
func (q *Queue) follow(e *event) {
	it := e.it
	if u := e.update; u != nil {
		it.claimed = false
		it.env.Attempts, it.env.Next, it.env.LastError = u.Attempts, u.Next, u.LastError
	}
	if e.last != nil {
		it.last = e.last
	}
	switch {
	case it.dropped || e.update == nil || e.update.Hold != 0:
		q.leave(it)
	case e.note != nil:
		it.note = e.note
		q.tell(it)
	case it.over(time.Now()) && q.holdOf(&it.env, it.msg.Sender) == nil:
		it.note = expired(it)
		q.tell(it)
	case e.warn:
		it.note = newNotice(kindDelayed, &e.result)
		q.tell(it)
	default:
		q.leave(it)
		q.stored(it.lane, it.env.Next)
	}
}
