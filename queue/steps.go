package queue

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Step is a stage of a message's way through the server.
type Step uint8

// The steps, in the order in which a message passes them. Accept contains Match and
// Expand; no two others overlap. A message passes those from ScheduleWait on again
// with each attempt, and those from Route to TLS only when it is relayed; Connect and
// TLS only when no session is open that it can use.
const (
	StepAccept       Step = iota // MAIL until the body may come: the client's dialogue, our questions
	StepMatch                    // lookup: the rules, for all recipients
	StepExpand                   // lookup: aliases and users, for all recipients
	StepBody                     // the body comes in
	StepCommitWait               // it waits for the transaction before its own
	StepCommit                   // its transaction, until it is on disk
	StepScheduleWait             // due, until a worker takes it
	StepRoute                    // mta: tables and DNS
	StepTurn                     // mta: waits for a connection it may use, as limits say
	StepConnect                  // mta: TCP, greeting, EHLO, AUTH
	StepTLS                      // mta: handshake
	StepTransfer                 // the dialogue, or the writing to a mailbox
	StepAck                      // its result, until that is on disk
	steps
)

func stepNames() []string {
	return []string{
		"accept", "match", "expand", "body", "commit-wait", "commit", "schedule-wait",
		"route", "turn", "connect", "tls", "transfer", "ack",
	}
}

// String returns the stage's name, as metrics and commands print it.
func (s Step) String() string {
	if s >= steps {
		return "unknown"
	}
	return stepNames()[s]
}

// Times is how long a message was in each stage; 0 means that it did not pass the
// stage, or that it is not known.
type Times [steps]time.Duration

// Add adds what has passed since a time to a stage.
func (t *Times) Add(s Step, since time.Time) { t[s] += max(time.Since(since), time.Nanosecond) }

// maxSpent bounds what a worker or smtpd may say that a stage took.
const maxSpent = 30 * 24 * time.Hour

// pack makes what travels: microseconds of the steps from first on, cut behind the
// last that was passed.
func (t *Times) pack(first, end Step) []uint64 {
	for end > first && t[end-1] <= 0 {
		end--
	}
	if end == first {
		return nil
	}
	wire := make([]uint64, end-first)
	for i := range wire {
		if d := t[first+Step(i)]; d > 0 {
			wire[i] = max(1, uint64(d/time.Microsecond))
		}
	}
	return wire
}

// unpack takes what a peer says of the steps from first up to end.
func (t *Times) unpack(wire []uint64, first, end Step) {
	for i, us := range wire[:min(len(wire), int(end-first))] {
		t[first+Step(i)] = time.Duration(min(us, uint64(maxSpent/time.Microsecond))) * time.Microsecond
	}
}

// The steps that smtpd and a worker know of.
const (
	inboundEnd = StepBody + 1
	workFirst  = StepRoute
	workEnd    = StepTransfer + 1
)

// profile counts how long steps take, in spans that grow: eight for each doubling,
// so that a percentile is within an eighth of the truth.
type profile struct {
	spans [steps][spanCount]atomic.Uint64
}

const (
	spanBits  = 3
	spanCount = (41 - spanBits) << spanBits // up to 2^40 us, 12 days
)

// spanOf returns the span of a number of microseconds.
func spanOf(us uint64) int {
	if us < 1<<spanBits {
		return int(us)
	}
	exp := bits.Len64(us) - 1 - spanBits
	return min(spanCount-1, exp<<spanBits+int(us>>exp))
}

// spanEnd returns the number of microseconds below which a span's are.
func spanEnd(i int) uint64 {
	if i < 1<<spanBits {
		return uint64(i) + 1
	}
	exp := i>>spanBits - 1
	return (uint64(i&(1<<spanBits-1)|1<<spanBits) + 1) << exp
}

func (p *profile) observe(s Step, d time.Duration) {
	p.spans[s][spanOf(uint64(max(0, d/time.Microsecond)))].Add(1)
}

// Profile is how long steps took since the queue's start.
type Profile struct {
	Since  time.Time
	Stages []StageCount // each in the order of steps
}

// StageCount counts the passes of a stage by how long they took: Spans has pairs of
// a number of microseconds and how many took less than that, and not less than the
// pair before says.
type StageCount struct {
	Stage string
	Spans [][2]uint64
}

func (p *profile) counts() []StageCount {
	all := make([]StageCount, steps)
	for s := range all {
		all[s].Stage = Step(s).String()
		for i := range p.spans[s] {
			if n := p.spans[s][i].Load(); n > 0 {
				all[s].Spans = append(all[s].Spans, [2]uint64{spanEnd(i), n})
			}
		}
	}
	return all
}

// Count is how many passes there were.
func (c *StageCount) Count() (n uint64) {
	for _, s := range c.Spans {
		n += s[1]
	}
	return n
}

// Percentile returns the time that p of 100 passes did not reach, 0 without passes.
func (c *StageCount) Percentile(p float64) time.Duration {
	rank := uint64(float64(c.Count())*p/100 + 0.5)
	for _, s := range c.Spans {
		if s[1] >= rank {
			return time.Duration(s[0]) * time.Microsecond
		}
		rank -= s[1]
	}
	return 0
}

// Minus returns what came since an earlier count of the same stage.
func (c StageCount) Minus(earlier StageCount) StageCount {
	was := make(map[uint64]uint64, len(earlier.Spans))
	for _, s := range earlier.Spans {
		was[s[0]] = s[1]
	}
	left := StageCount{Stage: c.Stage}
	for _, s := range c.Spans {
		if n := s[1] - min(s[1], was[s[0]]); n > 0 {
			left.Spans = append(left.Spans, [2]uint64{s[0], n})
		}
	}
	return left
}
