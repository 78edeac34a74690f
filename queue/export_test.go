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
