package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"tabard/internal/rpc"
	"tabard/lookup"
)

const (
	reporters   = 4 // messages whose senders are told at once
	reportWait  = 30 * time.Second
	reportPause = 10 * time.Second // after the first failure to route a bounce
	reportMost  = time.Hour
	maxReported = 1000 // recipients in one report
)

// reports gathers, per message, the envelopes whose sender is still to be told
// of an outcome. Its fields need active.mu.
type reports struct {
	waiting map[MessageID]*gathering
	order   backlog[MessageID]
}

// gathering is a report that is about to be written. It waits while other
// recipients of its message are being tried, but not for long; what comes before
// its turn travels in it.
type gathering struct {
	items []*item
	due   bool // it waits for its turn only
	timer *time.Timer
}

// tell queues an item that has a note. Needs active.mu.
func (q *Queue) tell(it *item) {
	id := it.env.ID.Message
	g := q.reports.waiting[id]
	if g == nil {
		g = &gathering{}
		g.timer = time.AfterFunc(q.opt.Gather, func() {
			q.active.mu.Lock()
			defer q.active.mu.Unlock()
			q.reportDue(id, g)
		})
		q.reports.waiting[id] = g
	}
	g.items = append(g.items, it)
	if !it.told {
		it.told = true
		it.msg.noted++
	}
	q.gathered(it.msg)
}

// gathered sees to a report that may have nothing to wait for any more. Needs
// active.mu.
func (q *Queue) gathered(m *message) {
	if m.noted == 0 || m.noted < m.live {
		return
	}
	if g := q.reports.waiting[m.ID]; g != nil {
		q.reportDue(m.ID, g)
	}
}

// reportDue gives a report its turn. Needs active.mu.
func (q *Queue) reportDue(id MessageID, g *gathering) {
	if g.due || q.reports.waiting[id] != g {
		return
	}
	g.due = true
	g.timer.Stop()
	q.reports.order.list = append(q.reports.order.list, id)
	q.goWhile(q.reportSome)
}

// reportSome writes reports as long as there are any to write.
func (q *Queue) reportSome() {
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &q.reports
	for q.running && q.ctx.Err() == nil && r.order.workers < min(reporters, len(r.order.list)) {
		r.order.workers++
		q.goWhile(q.reportAll)
	}
}

func (q *Queue) reportAll() {
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for q.ctx.Err() == nil {
		id, ok := q.reports.order.pop()
		if !ok {
			break
		}
		items := slices.DeleteFunc(q.reports.waiting[id].items, func(it *item) bool {
			if it.dropped {
				q.leave(it)
			}
			return it.dropped
		})
		delete(q.reports.waiting, id)
		a.mu.Unlock()
		q.report(items)
		a.mu.Lock()
	}
	q.reports.order.workers--
}

// report tells the sender of one message what became of its recipients: one
// report for each kind of news.
func (q *Queue) report(items []*item) {
	groups := [3][]*item{} // failed, delayed, delivered or relayed or expanded
	var silent []*item
	for _, it := range items {
		switch {
		case it.msg.Sender == "" || it.note.Expired && !it.env.wants("FAILURE"):
			silent = append(silent, it)
		case it.note.Kind == kindFailed:
			groups[0] = append(groups[0], it)
		case it.note.Kind == kindDelayed:
			groups[1] = append(groups[1], it)
		default:
			groups[2] = append(groups[2], it)
		}
	}
	q.drop(silent, "nobody to tell")
	for _, group := range groups {
		for part := range slices.Chunk(group, maxReported) {
			q.reportGroup(part)
		}
	}
}

func (q *Queue) reportGroup(items []*item) {
	ctx, cancel := context.WithTimeout(q.ctx, reportWait)
	defer cancel()
	reply, err := q.local.Bounce(ctx, items[0].msg.Sender)
	switch {
	case err != nil:
		q.postpone(items, err)
	case reply.Code >= 500 || reply.Code == 0 && len(reply.Targets) == 0:
		q.drop(items, replyText(reply.Code, reply.Enhanced, reply.Text))
	case reply.Code != 0:
		q.postpone(items, errors.New(replyText(reply.Code, reply.Enhanced, reply.Text)))
	default:
		err := q.bounce(ctx, items, reply.Targets)
		if errors.Is(err, rpc.ErrInvalid) {
			q.drop(items, err.Error())
		} else if err != nil {
			q.postpone(items, err)
		}
	}
}

// bounce stores a report in the transaction that ends the envelopes that it is
// about, so that neither can be without the other.
func (q *Queue) bounce(ctx context.Context, items []*item, targets []lookup.Target) error {
	d, body := q.newDSN(ctx, items)
	if body != nil {
		defer body.Close()
	}
	w := &writer{queue: q}
	defer w.leave()
	if err := d.write(w); err != nil {
		w.Abort()
		return fmt.Errorf("write report: %w", err)
	}
	m, err := w.finish(ctx, d.submission(targets))
	if err == nil {
		err = q.insertReport(ctx, m, items)
	}
	w.undo(err)
	return err
}

func (q *Queue) insertReport(ctx context.Context, m *NewMessage, items []*item) error {
	for i := range m.Envelopes {
		m.Envelopes[i].Lane = LaneLast
	}
	fresh := q.admit(m)
	defer q.epochs.begin()()
	change := q.ending(items)
	err := q.store.Encode(m)
	if err == nil {
		change.Insert = []NewMessage{*m}
		err = q.commits.do(ctx, change)
	}
	if err != nil {
		q.expel(fresh)
		return err
	}
	// Counted before it can be taken.
	q.count.bounced.Add(1)
	q.ended(change, items)
	q.recordReport(m, items[0].msg.ID)
	q.inserted(m, fresh)
	for _, it := range items {
		q.logEnd("queue bounce", &it.msg.Message, &it.env, slog.String("kind", it.note.Kind),
			slog.String("bounce", m.Message.ID.String()), slog.String("stat", noticeText(it.note)))
	}
	return nil
}

// ending removes envelopes that were reported, or notes that their delay was.
func (q *Queue) ending(items []*item) *Change {
	c := &Change{}
	for _, it := range items {
		if it.note.Kind != kindDelayed {
			c.Remove = append(c.Remove, it.env.ID)
			continue
		}
		c.Update = append(c.Update, Update{
			ID: it.env.ID, Attempts: it.env.Attempts, Next: it.env.Next, LastError: it.env.LastError,
			Warned: q.warnings(it, time.Now()), Notice: it.last.encode(),
		})
	}
	return c
}

// ended lets go of envelopes after their change is durable.
func (q *Queue) ended(change *Change, items []*item) {
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, it := range items {
		if it.note.Expired {
			q.count.expired.Add(1)
		}
		q.recordEnded(it)
		q.leave(it)
		if it.note.Kind == kindDelayed {
			q.stored(it.lane, it.env.Next)
		}
	}
}

// drop ends envelopes whose sender cannot be told: no bounce of a bounce.
func (q *Queue) drop(items []*item, why string) {
	if len(items) == 0 {
		return
	}
	change := q.ending(items)
	if err := q.commits.do(context.Background(), change); err != nil {
		q.postpone(items, err)
		return
	}
	for _, it := range items {
		event := "queue drop"
		if it.note.Expired {
			event = "queue expire"
		}
		q.logEnd(event, &it.msg.Message, &it.env, slog.String("kind", it.note.Kind),
			slog.String("stat", noticeText(it.note)), slog.String("reason", why))
	}
	q.ended(change, items)
}

// postpone keeps envelopes until their report can be routed. A warning is left
// to the next attempt.
func (q *Queue) postpone(items []*item, why error) {
	if q.ctx.Err() != nil {
		return // stopping: what is durable is found at the next start
	}
	q.log.Warn("report postponed", "message", items[0].msg.ID.String(), "error", why)
	change := &Change{}
	now := time.Now()
	for _, it := range items {
		u := Update{
			ID: it.env.ID, Attempts: it.env.Attempts, Next: it.env.Next, LastError: it.env.LastError,
			Warned: it.warned, Notice: it.last.encode(),
		}
		if it.note.Kind != kindDelayed {
			it.note.Tries++
			n := time.Duration(it.note.Tries)
			u.Next = now.Add(min(n*n*reportPause, reportMost))
			u.Notice = it.note.encode()
		}
		it.env.Next = u.Next
		change.Update = append(change.Update, u)
	}
	if err := q.commits.do(q.ctx, change); err != nil {
		q.log.Error("report postponed, but not stored", "error", err)
		q.goWhile(func() { q.reportAgain(items) })
		return
	}
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, it := range items {
		q.leave(it)
		q.stored(it.lane, it.env.Next)
	}
}

// reportAgain tries once more, from memory, what the store would not take.
func (q *Queue) reportAgain(items []*item) {
	if !sleep(q.ctx, settlePause) {
		return
	}
	q.active.mu.Lock()
	for _, it := range items {
		q.tell(it)
	}
	q.active.mu.Unlock()
}

// newDSN gathers what a report says. Without the original message, damaged as
// it may be, the report is still due.
func (q *Queue) newDSN(ctx context.Context, items []*item) (*dsn, io.Closer) {
	d := newDSN(&items[0].msg.Message, items)
	d.hostname, d.id, d.date = q.rules.Load().Hostname, q.ids.Next(), time.Now()
	body, err := q.store.Body(ctx, d.message.ID)
	if err == nil {
		if d.original, err = examine(body, body.Size(), d.whole()); err == nil {
			return d, body
		}
		body.Close()
	}
	q.log.Warn("report without its message", "message", d.message.ID.String(), "error", err)
	return d, nil
}
