package eventlog

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"tabard/internal/address"
	"tabard/internal/rpc"
)

// Bounds of one batch, and of one event.
const (
	// MaxBatch is how many events a batch may have.
	MaxBatch = 1000
	maxBytes = 512 << 10 // of a batch, about
	maxText  = 1000      // bytes of a reply
	maxWord  = 400       // of anything else; an address has 320
)

// Batch is events on their way to the database, by kind.
type Batch struct {
	Sessions  []Session  `cbor:",omitempty"`
	Messages  []Message  `cbor:",omitempty"`
	Envelopes []Envelope `cbor:",omitempty"`
	Attempts  []Attempt  `cbor:",omitempty"`
	Results   []Result   `cbor:",omitempty"`
	Traces    []Trace    `cbor:",omitempty"`
	Losses    []Loss     `cbor:",omitempty"`
}

// Add appends an event.
func (b *Batch) Add(e Event) {
	switch e := e.(type) {
	case *Session:
		b.Sessions = append(b.Sessions, *e)
	case *Message:
		b.Messages = append(b.Messages, *e)
	case *Envelope:
		b.Envelopes = append(b.Envelopes, *e)
	case *Attempt:
		b.Attempts = append(b.Attempts, *e)
	case *Result:
		b.Results = append(b.Results, *e)
	case *Trace:
		b.Traces = append(b.Traces, *e)
	case *Loss:
		b.Losses = append(b.Losses, *e)
	}
}

// Len counts the events.
func (b *Batch) Len() int {
	return len(b.Sessions) + len(b.Messages) + len(b.Envelopes) + len(b.Attempts) + len(b.Results) + len(b.Traces) + len(b.Losses)
}

// Of returns the events of a kind.
func (b *Batch) Of(k Kind) []Event {
	switch k {
	case KindSession:
		return events(b.Sessions)
	case KindMessage:
		return events(b.Messages)
	case KindEnvelope:
		return events(b.Envelopes)
	case KindAttempt:
		return events(b.Attempts)
	case KindResult:
		return events(b.Results)
	case KindTrace:
		return events(b.Traces)
	case KindLoss:
		return events(b.Losses)
	}
	return nil
}

func events[T any, P interface {
	*T
	Event
}](list []T) []Event {
	all := make([]Event, len(list))
	for i := range list {
		all[i] = P(&list[i])
	}
	return all
}

// Clean brings an event into the form in which it may be stored: texts on one line
// and bounded, times in whole milliseconds, domains from their addresses. It returns
// about how many bytes the event takes. It is called where mail waits, so it goes by no
// list of fields.
func Clean(e Event) int { return e.clean() }

func (h *Head) clean() int {
	h.At = stored(h.At)
	return 128 + words(&h.Node, &h.Process)
}

func (p *Party) clean() int {
	p.Domain = domainOf(p.Address)
	return 112 + words(&p.Session, &p.Message, &p.Envelope, &p.Sender, &p.Recipient, &p.Address, &p.Domain)
}

func (e *Session) clean() int {
	e.Began = stored(e.Began)
	return e.Head.clean() + 208 + words(&e.ID, &e.Direction, &e.Listener, &e.Peer, &e.Name, &e.Helo, &e.TLS, &e.Verdict, &e.Identity, &e.Login, &e.Reason)
}

func (e *Message) clean() int {
	e.Domain = domainOf(e.Sender)
	return e.Head.clean() + 176 + words(&e.ID, &e.Session, &e.Sender, &e.Domain, &e.HeaderID, &e.Protocol, &e.Login, &e.Peer, &e.About)
}

func (e *Envelope) clean() int {
	return e.Head.clean() + e.Party.clean() + 32 + words(&e.Action, &e.Destination)
}

func (e *Attempt) clean() int {
	return e.Head.clean() + e.Party.clean() + 208 + line(&e.Text, maxText) +
		words(&e.Action, &e.Host, &e.Peer, &e.Source, &e.TLSWanted, &e.TLSBy, &e.TLSHad, &e.Outcome, &e.Status)
}

func (e *Result) clean() int {
	return e.Head.clean() + e.Party.clean() + 80 + line(&e.Text, maxText) + words(&e.Result, &e.Status)
}

func (e *Trace) clean() int {
	return e.Head.clean() + 64 + words(&e.Message, &e.Envelope, &e.Stage)
}

func (e *Loss) clean() int {
	e.Since, e.Until = stored(e.Since), stored(e.Until)
	return e.Head.clean() + 64 + words(&e.Reason)
}

// stored is a time as it is stored.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// words cleans texts, and returns how many bytes they take.
func words(list ...*string) (size int) {
	for _, s := range list {
		size += line(s, maxWord)
	}
	return size
}

// line makes a text one line of bounded length, and returns that.
func line(s *string, limit int) int {
	if !plain(*s, limit) {
		*s = address.OneLine(*s, limit)
	}
	return len(*s)
}

// plain reports whether a text is as it may be stored; most are.
func plain(s string, limit int) bool {
	if len(s) > limit-utf8.UTFMax {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

func domainOf(addr string) string {
	_, domain := address.Split(addr)
	return strings.ToLower(domain)
}

// allowed says what a process may tell. Nobody but the queue knows the end of an
// envelope; a client's refused command is a Result, too.
func allowed(process string, e Event) bool {
	switch e := e.(type) {
	case *Loss, *Trace:
		return true
	case *Session:
		return process == "smtpd" && e.Direction == In || process == "mta" && e.Direction == Out
	case *Message:
		return process == "smtpd" || process == "queue"
	case *Envelope:
		return process == "queue"
	case *Attempt:
		return process == "mta" || process == "queue"
	case *Result:
		return process == "queue" || process == "smtpd" && e.Result == Rejected && e.Envelope == ""
	}
	return false
}

// How far the time of an event may be from now. A process may have had to keep it for
// as long as the database was down.
const (
	maxPast   = 7 * 24 * time.Hour
	maxFuture = time.Hour
)

// check makes a batch from a process fit to be stored, or says why it is not.
func (b *Batch) check(process string, now time.Time) error {
	if n := b.Len(); n > MaxBatch {
		return fmt.Errorf("%w: %d events in one batch", rpc.ErrInvalid, n)
	}
	for _, k := range Kinds() {
		for _, e := range b.Of(k) {
			h := e.Common()
			h.Process = process
			if !allowed(process, e) {
				return fmt.Errorf("%w: %s may not tell of this %s", rpc.ErrInvalid, process, k)
			}
			Clean(e)
			for _, f := range e.Fields() {
				if err := sane(f, now); err != nil {
					return fmt.Errorf("%w: %s: %w", rpc.ErrInvalid, k, err)
				}
			}
		}
	}
	return nil
}

// sane reports numbers and times that cannot be.
func sane(f Field, now time.Time) error {
	switch v := f.Value.(type) {
	case *time.Time:
		if v.Before(now.Add(-maxPast)) || v.After(now.Add(maxFuture)) {
			return fmt.Errorf("%s is at %s", f.Name, v.Format(time.RFC3339))
		}
	case *int64:
		if f.Name != "key" && *v < 0 {
			return fmt.Errorf("%s is %d", f.Name, *v)
		}
	}
	return nil
}
