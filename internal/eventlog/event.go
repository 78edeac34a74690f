// Package eventlog is the log of what became of mail, in rows instead of lines: the
// events, how they get from the processes where they happen to lookup, which alone
// may write them to a database, and what is told of that.
//
// A process gives events to its Feed, which never waits: it keeps a bounded number of
// them and hands them on in batches. What it has to drop it counts, and says so in a
// Loss, a row of its own, once it can write again. On lookup's side the Hub checks
// what comes, which may be hostile, and gives it to a Store (backends/eventlog).
package eventlog

import "time"

// Kind is what an event is about; each has a table of its own.
type Kind string

// The kinds of events.
const (
	KindSession  Kind = "session"  // an SMTP session ended
	KindMessage  Kind = "message"  // a message was accepted, or made here
	KindEnvelope Kind = "envelope" // one recipient of it, after aliases
	KindAttempt  Kind = "attempt"  // one attempt to deliver one envelope
	KindResult   Kind = "result"   // the end of an envelope, or a recipient that was refused
	KindTrace    Kind = "trace"    // how long a message took in one stage
	KindLoss     Kind = "loss"     // events that could not be kept
)

// Kinds lists them, in the order in which a message meets them.
func Kinds() []Kind {
	return []Kind{KindSession, KindMessage, KindEnvelope, KindTrace, KindAttempt, KindResult, KindLoss}
}

// Event is one thing that happened: *Session, *Message, *Envelope, *Attempt, *Result,
// *Trace or *Loss.
type Event interface {
	// Kind says what the event is about.
	Kind() Kind
	// Fields returns the columns in the order of the table, those of Head first, each
	// with a pointer to its value in the event.
	Fields() []Field
	// Common returns what every event has.
	Common() *Head
	clean() int // is Clean
}

// Field is a column and a pointer to its value: *string, *int64, or *time.Time.
type Field struct {
	Name  string
	Value any
}

// Recorder takes events. It never waits, and never fails.
type Recorder interface {
	// On reports whether events are wanted at all. To make them for nobody is a waste.
	On() bool
	// Record takes an event, which is its own from then on.
	Record(e Event)
}

// On reports whether r, which may be nil, wants events.
func On(r Recorder) bool { return r != nil && r.On() }

// Head is what every event has. At and Key together name it: what comes twice with
// the same is stored once.
type Head struct {
	At      time.Time // when it happened, in milliseconds
	Key     int64
	Node    string // host name of the server
	Process string // that tells it: smtpd, queue, mta; or the format of an imported log
}

// Common implements Event.
func (h *Head) Common() *Head { return h }

func (h *Head) fields(more ...Field) []Field {
	return append([]Field{{"at", &h.At}, {"key", &h.Key}, {"node", &h.Node}, {"process", &h.Process}}, more...)
}

// The values of Session.Direction.
const (
	In  = "in"
	Out = "out"
)

// Session is an SMTP session, when it ends. Times are in milliseconds.
type Session struct {
	Head
	ID        string
	Direction string // In: a client's with us; Out: ours with another server
	Listener  string // in: address and port
	Peer      string // IP address, or "local"
	Name      string // host name of the peer
	Helo      string // in: what the client called itself; out: what we did
	TLS       string // version and cipher; empty: none
	Verdict   string // on the peer's certificate: verified, failed or unchecked
	Identity  string // of a verified peer; the reason of a failed one
	Login     string // authenticated user
	Began     time.Time
	Messages  int64  // in: accepted; out: transactions begun
	Reason    string // why it ended: quit, timeout, disconnect, ...
}

// Kind implements Event.
func (*Session) Kind() Kind { return KindSession }

// Fields implements Event.
func (e *Session) Fields() []Field {
	return e.fields(Field{"id", &e.ID}, Field{"direction", &e.Direction}, Field{"listener", &e.Listener}, Field{"peer", &e.Peer},
		Field{"name", &e.Name}, Field{"helo", &e.Helo}, Field{"tls", &e.TLS}, Field{"verdict", &e.Verdict},
		Field{"identity", &e.Identity}, Field{"login", &e.Login}, Field{"began", &e.Began},
		Field{"messages", &e.Messages}, Field{"reason", &e.Reason})
}

// Message is a message that was accepted, or that the queue made: a report.
type Message struct {
	Head
	ID         string
	Session    string // that brought it
	Sender     string // reverse-path; empty: null
	Domain     string // of the sender, in lower case
	Size       int64  // bytes
	Recipients int64  // before aliases
	HeaderID   string // field Message-ID, without brackets
	Protocol   string // ESMTPS, ...
	Login      string // authenticated submitter
	Peer       string // address of the client
	About      string // of a report: the message that it is about
}

// Kind implements Event.
func (*Message) Kind() Kind { return KindMessage }

// Fields implements Event.
func (e *Message) Fields() []Field {
	return e.fields(Field{"id", &e.ID}, Field{"session", &e.Session}, Field{"sender", &e.Sender}, Field{"domain", &e.Domain},
		Field{"size", &e.Size}, Field{"recipients", &e.Recipients}, Field{"header_id", &e.HeaderID},
		Field{"protocol", &e.Protocol}, Field{"login", &e.Login}, Field{"peer", &e.Peer}, Field{"about", &e.About})
}

// Party is what events about one recipient of a message have in common.
type Party struct {
	Session   string // that brought the message, or, of an attempt, that it was made in
	Message   string // id
	Envelope  string // id
	Sender    string // reverse-path; empty: null
	Recipient string // as given in RCPT; empty: as Address
	Address   string // after aliases
	Domain    string // of Address, in lower case
}

func (p *Party) fields() []Field {
	return []Field{{"session", &p.Session}, {"message", &p.Message}, {"envelope", &p.Envelope}, {"sender", &p.Sender},
		{"recipient", &p.Recipient}, {"address", &p.Address}, {"domain", &p.Domain}}
}

// Envelope is one recipient of a message, after aliases.
type Envelope struct {
	Head
	Party
	Action      string
	Destination string // what shares a fate with it: action/domain, action or action/user
}

// Kind implements Event.
func (*Envelope) Kind() Kind { return KindEnvelope }

// Fields implements Event.
func (e *Envelope) Fields() []Field {
	return append(e.Head.fields(e.Party.fields()...), Field{"action", &e.Action}, Field{"destination", &e.Destination})
}

// The outcomes of an attempt.
const (
	OK   = "ok"
	Temp = "temp" // it is tried again
	Perm = "perm" // never
)

// Attempt is one attempt to deliver one envelope.
type Attempt struct {
	Head
	Party
	Action     string
	Host       string // relay: name of the server
	Peer       string // relay: its address
	Source     string // relay: the address that we sent from
	TLSWanted  string // level wanted at least (the names of tls-policy rows)
	TLSBy      string // who wanted it
	TLSHad     string // level of the channel
	Outcome    string // OK, Temp or Perm
	Code       int64  // SMTP reply code; 0: none
	Status     string // enhanced status code (RFC 3463)
	Text       string // the reply, on one line
	DurationMS int64
	DelayMS    int64 // since the message was accepted
}

// Kind implements Event.
func (*Attempt) Kind() Kind { return KindAttempt }

// Fields implements Event.
func (e *Attempt) Fields() []Field {
	return append(e.Head.fields(e.Party.fields()...), Field{"action", &e.Action}, Field{"host", &e.Host}, Field{"peer", &e.Peer},
		Field{"source", &e.Source}, Field{"tls_wanted", &e.TLSWanted}, Field{"tls_by", &e.TLSBy}, Field{"tls_had", &e.TLSHad},
		Field{"outcome", &e.Outcome}, Field{"code", &e.Code}, Field{"status", &e.Status}, Field{"text", &e.Text},
		Field{"duration_ms", &e.DurationMS}, Field{"delay_ms", &e.DelayMS})
}

// The ends of an envelope.
const (
	Delivered = "delivered" // into a mailbox, or to a program
	Relayed   = "relayed"   // to another server, which took it over
	Expanded  = "expanded"  // into several recipients, of which its sender was told
	Failed    = "failed"
	Expired   = "expired"
	Removed   = "removed"  // by hand
	Rejected  = "rejected" // never taken: a command was refused
)

// Results lists them.
func Results() []string {
	return []string{Delivered, Relayed, Expanded, Failed, Expired, Removed, Rejected}
}

// Result is the end of an envelope, or a command of a client that was refused.
type Result struct {
	Head
	Party
	Result  string
	Code    int64
	Status  string
	Text    string // on one line
	DelayMS int64  // since the message was accepted
}

// Kind implements Event.
func (*Result) Kind() Kind { return KindResult }

// Fields implements Event.
func (e *Result) Fields() []Field {
	return append(e.Head.fields(e.Party.fields()...), Field{"result", &e.Result}, Field{"code", &e.Code},
		Field{"status", &e.Status}, Field{"text", &e.Text}, Field{"delay_ms", &e.DelayMS})
}

// Trace is how long a message, or one of its envelopes, took in one stage.
type Trace struct {
	Head
	Message    string
	Envelope   string // empty: of the whole message
	Stage      string
	DurationUS int64 // microseconds
}

// Kind implements Event.
func (*Trace) Kind() Kind { return KindTrace }

// Fields implements Event.
func (e *Trace) Fields() []Field {
	return e.fields(Field{"message", &e.Message}, Field{"envelope", &e.Envelope}, Field{"stage", &e.Stage}, Field{"duration_us", &e.DurationUS})
}

// Loss marks events of a process that could not be kept: Count of them between Since
// and Until.
type Loss struct {
	Head
	Since, Until time.Time
	Count        int64
	Reason       string
}

// Kind implements Event.
func (*Loss) Kind() Kind { return KindLoss }

// Fields implements Event.
func (e *Loss) Fields() []Field {
	return e.fields(Field{"since", &e.Since}, Field{"until", &e.Until}, Field{"count", &e.Count}, Field{"reason", &e.Reason})
}

// New returns an empty event of a kind, or nil of one that there is not.
func New(k Kind) Event {
	switch k {
	case KindSession:
		return &Session{}
	case KindMessage:
		return &Message{}
	case KindEnvelope:
		return &Envelope{}
	case KindAttempt:
		return &Attempt{}
	case KindResult:
		return &Result{}
	case KindTrace:
		return &Trace{}
	case KindLoss:
		return &Loss{}
	}
	return nil
}
