package queue

import (
	"bytes"
	"io"
	"time"
)

// WriteReport writes the report of one result, and returns what its own submission
// says of it.
func WriteReport(w io.Writer, kind string, m Message, e Envelope, r Result, body []byte) (Message, error) {
	var err error
	it := &item{env: e, msg: &message{Message: m}}
	r = checked(r)
	it.note = newNotice(kind, &r)
	d := newDSN(&it.msg.Message, []*item{it})
	d.hostname, d.date = "mx.test.example", time.Unix(1e9, 0)
	if d.original, err = examine(bytes.NewReader(body), int64(len(body)), d.whole()); err != nil {
		return Message{}, err
	}
	return d.submission(nil).Message, d.write(w)
}

// MaxReturned is the largest message that goes back whole.
const MaxReturned = maxReturned

// Ready is how many envelopes wait for a worker of a user id.
func (q *Queue) Ready(uid int) int {
	q.active.mu.Lock()
	defer q.active.mu.Unlock()
	n := 0
	for _, d := range q.active.destinations {
		if d.pool != nil && d.pool.key.uid == uid {
			for _, s := range d.shares {
				n += len(s.ready)
			}
		}
	}
	return n
}

// SpanOf is the span that the profile counts a number of microseconds in.
func SpanOf(us uint64) int { return spanOf(us) }

// SpanEnd is where a span ends.
func SpanEnd(i int) uint64 { return spanEnd(i) }

// InMemory is how many envelopes are in memory, or about to be.
func (q *Queue) InMemory() int {
	q.active.mu.Lock()
	defer q.active.mu.Unlock()
	return max(q.active.total, len(q.active.items))
}

// KeepColumns bounds what columns that are read in pieces keep in memory, before the
// first of them.
func KeepColumns(w Worker, bytes int64) { w.(*poolWorker).room = bytes }
