package queue

import (
	"time"

	"tabard/lookup"
)

// What travels between processes: arrays without field names, times in
// milliseconds. Nothing of what the queue decides by itself is taken from a
// peer.

const (
	wireBytes      = 512 << 10 // about what one call carries, below rpc.DefaultMaxFrame
	wireRecipients = 500       // recipients in one call
	wireResults    = 1000
	wireText       = 4 << 10
	wireChunk      = 64 << 10
)

type wireMessage struct {
	_        struct{} `cbor:",toarray"`
	ID       int64
	Sender   string
	EightBit bool
	UTF8     bool
	Ret      string
	EnvID    string
	Session  string
	User     string
	Helo     string
	Remote   string
	Size     int64
	Created  int64
	Require  bool
	Optional bool
	Priority int
	Release  int64
	By       int64
	ByNotify bool
	ByTrace  bool
}

func toWireMessage(m *Message) wireMessage {
	return wireMessage{
		ID: int64(m.ID), Sender: m.Sender, EightBit: m.EightBit, UTF8: m.UTF8, Ret: m.Ret, EnvID: m.EnvID,
		Session: m.Session, User: m.User, Helo: m.Helo, Remote: m.Remote, Size: m.Size, Created: toMillis(m.Created),
		Require: m.RequireTLS, Optional: m.TLSOptional, Priority: m.Priority, Release: toMillis(m.Release),
		By: toMillis(m.DeliverBy.Time), ByNotify: m.DeliverBy.Notify, ByTrace: m.DeliverBy.Trace,
	}
}

func (w *wireMessage) message() Message {
	return Message{
		ID: MessageID(w.ID), Sender: w.Sender, EightBit: w.EightBit, UTF8: w.UTF8, Ret: w.Ret, EnvID: w.EnvID,
		Session: w.Session, User: w.User, Helo: w.Helo, Remote: w.Remote, Size: w.Size, Created: fromMillis(w.Created),
		RequireTLS: w.Require, TLSOptional: w.Optional, Priority: w.Priority, Release: fromMillis(w.Release),
		DeliverBy: DeliverBy{Time: fromMillis(w.By), Notify: w.ByNotify, Trace: w.ByTrace},
	}
}

// wireRecipient is what smtpd says of an envelope.
type wireRecipient struct {
	_         struct{} `cbor:",toarray"`
	Address   string
	Recipient string
	ORCPT     string
	Notify    string
	Action    string
	Relay     bool
	User      string
}

func toWireRecipients(list []Envelope) []wireRecipient {
	wire := make([]wireRecipient, len(list))
	for i, e := range list {
		wire[i] = wireRecipient{
			Address: e.Address, Recipient: e.Recipient, ORCPT: e.ORCPT, Notify: e.Notify,
			Action: e.Action, Relay: e.Relay, User: e.User,
		}
	}
	return wire
}

func (w *wireRecipient) envelope() Envelope {
	return Envelope{
		Address: w.Address, Recipient: w.Recipient, ORCPT: w.ORCPT, Notify: w.Notify,
		Action: w.Action, Relay: w.Relay, User: w.User,
	}
}

func (w *wireRecipient) weight() int {
	return 32 + len(w.Address) + len(w.Recipient) + len(w.ORCPT) + len(w.Notify) + len(w.Action) + len(w.User)
}

// wireEnvelope is an envelope with its history.
type wireEnvelope struct {
	_         struct{} `cbor:",toarray"`
	Message   int64
	N         int
	To        wireRecipient
	Created   int64
	Expires   int64
	Attempts  int
	Next      int64
	LastError string
	Held      bool
}

func toWireEnvelopes(list []Envelope) []wireEnvelope {
	wire := make([]wireEnvelope, len(list))
	to := toWireRecipients(list)
	for i, e := range list {
		wire[i] = wireEnvelope{
			Message: int64(e.ID.Message), N: e.ID.N, To: to[i], Created: toMillis(e.Created), Expires: toMillis(e.Expires),
			Attempts: e.Attempts, Next: toMillis(e.Next), LastError: e.LastError, Held: e.Held,
		}
	}
	return wire
}

func (w *wireEnvelope) envelope() Envelope {
	e := w.To.envelope()
	e.ID = EnvelopeID{MessageID(w.Message), w.N}
	e.Created, e.Expires, e.Next = fromMillis(w.Created), fromMillis(w.Expires), fromMillis(w.Next)
	e.Attempts, e.LastError, e.Held = w.Attempts, w.LastError, w.Held
	return e
}

func fromWireEnvelopes(wire []wireEnvelope) []Envelope {
	list := make([]Envelope, len(wire))
	for i := range wire {
		list[i] = wire[i].envelope()
	}
	return list
}

type wireJob struct {
	_         struct{} `cbor:",toarray"`
	Message   wireMessage
	Body      []byte
	Inline    bool // Body is the whole body, which may be empty
	Envelopes []wireEnvelope
	Domain    string
	Delivery  *lookup.Delivery
	Urged     bool
}

func toWireJobs(jobs []Job) []wireJob {
	wire := make([]wireJob, len(jobs))
	for i, j := range jobs {
		wire[i] = wireJob{
			Message: toWireMessage(&j.Message), Body: j.Body, Inline: j.Body != nil,
			Envelopes: toWireEnvelopes(j.Envelopes), Domain: j.Domain, Delivery: j.Delivery, Urged: j.Urged,
		}
	}
	return wire
}

func fromWireJobs(wire []wireJob, paused []Hold) []Job {
	jobs := make([]Job, len(wire))
	for i, w := range wire {
		jobs[i] = Job{
			Message: w.Message.message(), Body: w.Body,
			Envelopes: fromWireEnvelopes(w.Envelopes), Domain: w.Domain, Delivery: w.Delivery, Paused: paused, Urged: w.Urged,
		}
		switch {
		case !w.Inline:
			jobs[i].Body = nil
		case w.Body == nil:
			jobs[i].Body = []byte{}
		}
	}
	return jobs
}

type wireResult struct {
	_         struct{} `cbor:",toarray"`
	Message   int64
	N         int
	Outcome   Outcome
	Code      int
	Enhanced  string
	Text      string
	Remote    string
	Relayed   bool
	NotBefore int64
	Wanted    string
	By        string
	Had       string
	Window    int
	Hold      int64
	Servers   string
	Source    string
	KeepsTime bool
	Spent     []uint64
}

func toWireResults(list []Result) []wireResult {
	wire := make([]wireResult, len(list))
	for i, r := range list {
		wire[i] = wireResult{
			Message: int64(r.ID.Message), N: r.ID.N, Outcome: r.Outcome, Code: r.Code, Enhanced: r.Enhanced,
			Text: cut(r.Text), Remote: cut(r.Remote), Relayed: r.Relayed, NotBefore: toMillis(r.NotBefore), Window: r.Window,
			Hold: r.Hold, Servers: cut(r.Servers), Source: cut(r.Source), KeepsTime: r.KeepsTime,
			Wanted: cut(r.Security.Wanted), By: cut(r.Security.By), Had: cut(r.Security.Had),
			Spent: r.Spent.pack(workFirst, workEnd),
		}
	}
	return wire
}

func (w *wireResult) result() Result {
	r := Result{
		ID: EnvelopeID{MessageID(w.Message), w.N}, Outcome: w.Outcome, Code: w.Code, Enhanced: w.Enhanced,
		Text: w.Text, Remote: w.Remote, Relayed: w.Relayed, NotBefore: fromMillis(w.NotBefore), Window: w.Window,
		Hold: w.Hold, Servers: cut(w.Servers), Source: cut(w.Source), KeepsTime: w.KeepsTime,
		Security: Security{Wanted: w.Wanted, By: w.By, Had: w.Had},
	}
	r.Spent.unpack(w.Spent, workFirst, workEnd)
	return r
}

// cut keeps a reply's text within what one call carries.
func cut(s string) string {
	if len(s) > wireText {
		return s[:wireText]
	}
	return s
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
