package queue

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"tabard/internal/rpc"
)

const (
	maxTraces   = 10_000 // messages that are remembered
	maxAttempts = 64     // of one message
)

// Trace is what is remembered of a message's way: of the last ones that came or
// were tried since the queue's start.
type Trace struct {
	Message  MessageID `json:"message"`
	Accepted time.Time `json:"accepted"` // zero: before the queue's start
	Inbound  Passed    `json:"inbound"`
	Attempts []Attempt `json:"attempts"`
	Missing  int       `json:"missing"` // attempts that are remembered no more
}

// Attempt is one attempt at one envelope.
type Attempt struct {
	Envelope EnvelopeID `json:"envelope"`
	Taken    time.Time  `json:"taken"` // by a worker
	Passed   Passed     `json:"passed"`
	Outcome  string     `json:"outcome"`
	Text     string     `json:"text"` // one line
	Remote   string     `json:"remote"`
}

// Passed are the steps that something passed, in their order.
type Passed []Pass

// Pass is one stage and how long it took.
type Pass struct {
	Stage string        `json:"stage"`
	Took  time.Duration `json:"took_ns"`
}

func (s *spent) passed() Passed {
	var all Passed
	for i, us := range s {
		if us > 0 {
			all = append(all, Pass{Step(i).String(), time.Duration(us) * time.Microsecond})
		}
	}
	return all
}

// traces remembers the ways of the last messages.
type traces struct {
	mu   sync.Mutex
	of   map[MessageID]*trace
	ring []MessageID // the oldest is at next, once it is full
	next int
}

type trace struct {
	accepted time.Time
	inbound  spent
	attempts []attempt
	missing  int
}

type attempt struct {
	n              int // of the envelope
	taken          time.Time
	spent          spent
	outcome        Outcome
	code           int
	enhanced, text string
	remote         string
}

// spent are Times as they are remembered: microseconds, of which 2^32 are an hour.
type spent [steps]uint32

func (t *Times) spent() (s spent) {
	for i, d := range t {
		if d > 0 {
			s[i] = uint32(min(max(1, d/time.Microsecond), math.MaxUint32))
		}
	}
	return s
}

func newTraces() *traces { return &traces{of: make(map[MessageID]*trace)} }

// get returns the trace of a message, which it begins, and forgets the oldest for.
// Needs mu.
func (t *traces) get(id MessageID) *trace {
	if tr := t.of[id]; tr != nil {
		return tr
	}
	tr := &trace{}
	if len(t.ring) < maxTraces {
		t.ring = append(t.ring, id)
	} else {
		delete(t.of, t.ring[t.next])
		t.ring[t.next] = id
		t.next = (t.next + 1) % maxTraces
	}
	t.of[id] = tr
	return tr
}

func (t *traces) accepted(id MessageID, at time.Time, in *Times) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.get(id)
	tr.accepted, tr.inbound = at, in.spent()
}

func (t *traces) attempted(id MessageID, a attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.get(id)
	if len(tr.attempts) >= maxAttempts {
		tr.attempts = slices.Delete(tr.attempts, 0, 1)
		tr.missing++
	}
	tr.attempts = append(tr.attempts, a)
}

// Trace implements Admin.
func (q *Queue) Trace(_ context.Context, id MessageID) (Trace, error) {
	t := q.traces
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.of[id]
	if tr == nil {
		return Trace{}, rpc.ErrNotFound
	}
	out := Trace{Message: id, Accepted: tr.accepted, Inbound: tr.inbound.passed(), Missing: tr.missing}
	for _, a := range tr.attempts {
		out.Attempts = append(out.Attempts, Attempt{
			Envelope: EnvelopeID{id, a.n}, Taken: a.taken, Passed: a.spent.passed(),
			Outcome: a.outcome.String(), Text: replyText(a.code, a.enhanced, a.text), Remote: a.remote,
		})
	}
	return out, nil
}

// Profile implements Admin.
func (q *Queue) Profile(context.Context) (Profile, error) {
	return Profile{Since: q.began, Stages: q.spans.counts()}, nil
}

// observe counts what a message, or an attempt at one of its envelopes, has passed.
func (q *Queue) observe(t *Times) {
	for s, d := range t {
		if d > 0 {
			q.spans.observe(Step(s), d)
			q.numbers.stage.ObserveAt(s, d.Seconds())
		}
	}
}

// came notes the way of a message that is durable now.
func (q *Queue) came(m *NewMessage, c *Change) {
	t := m.Spent
	t[StepCommitWait], t[StepCommit] = max(c.Waited, 1), max(c.Took, 1)
	q.observe(&t)
	q.traces.accepted(m.Message.ID, m.Message.Created, &t)
	q.recordTimes(&t, m.Message.Created, m.Message.ID.String(), "")
}

// went notes the way of an attempt whose result is durable now.
func (q *Queue) went(e *event, reported time.Time) {
	t := e.result.Spent
	t[StepScheduleWait] = max(e.it.taken.Sub(e.it.since), 1)
	t.Add(StepAck, reported)
	q.observe(&t)
	q.recordTimes(&t, e.it.taken, e.it.env.ID.Message.String(), e.it.env.ID.String())
	r := &e.result
	q.traces.attempted(e.it.env.ID.Message, attempt{
		n: e.it.env.ID.N, taken: e.it.taken, spent: t.spent(),
		outcome: r.Outcome, code: r.Code, enhanced: r.Enhanced, text: r.Text, remote: r.Remote,
	})
}
