// Package queue holds accepted messages until each recipient is delivered,
// bounced or removed.
//
// A message is durable before its 250. In this order:
//
//  1. A body of up to ColumnBody bytes stays in memory. A larger one is written to
//     a temporary file of the store as it comes (Stage), with its checksum counted.
//  2. At the end of the data that file is synced, closed and linked to the id of the
//     message; the temporary name is removed, and the directory synced (Stage.Keep).
//  3. One transaction has the message, its body if that is small, where its file is
//     if not, the checksum, and every envelope. Whatever waits for the disk shares
//     it (committer). It is synced before it counts as committed (Store.Apply).
//  4. Enqueue or Writer.Commit returns, and smtpd says 250.
//
// A failure before the end of 3 is an error, which costs the client a 4xx, and
// leaves neither row nor file. A crash before it leaves a file without a row at
// worst, which the next start removes; never a row without its file. A crash
// between 3 and 4 leaves a message that the client sends again.
//
// The outcome of an attempt is durable before Done returns, and the bounce that a
// failure owes is stored in the transaction that removes the failed envelope: at no
// instant is a recipient in neither. A body's file goes after the transaction that
// removes its row. After a crash a delivery whose outcome was not recorded is tried
// again. The checksum of a body is verified whenever it is read from the store.
//
// A failed sync, or a database that is found damaged, is the end of the store
// (ErrBroken): it refuses everything, Run returns, and the process ends, to be
// started again by the supervisor on what is durable. A full disk is an error that
// heals (rpc.ErrNoSpace, 452).
//
// Only what is due is in memory (active): at most Options.MaxActive envelopes,
// each destination with its share. New mail goes there straight from its
// transaction; the rest waits in the store until the scan finds it due.
package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tabard/lookup"
)

// InlineBody is the largest body, in bytes, that travels within one call; larger ones
// stream.
const InlineBody = 64 << 10

// ColumnBody is the largest body, in bytes, that is kept as a column; larger ones are
// files. As columns messages of 100 KB are stored faster by a third, those of 200 KB
// slower by a fifth (bench/README.md).
const ColumnBody = 128 << 10

// MessageID names a message: 44 bits of milliseconds since 1970 and 20 random
// bits, so that new rows go to the end of the store's tree.
type MessageID int64

// String returns 16 hexadecimal digits.
func (id MessageID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// EnvelopeID names one recipient of a message.
type EnvelopeID struct {
	Message MessageID
	N       int
}

// String returns "MESSAGE.N".
func (id EnvelopeID) String() string { return id.Message.String() + "." + strconv.Itoa(id.N) }

// MarshalText returns the form that commands take, in JSON too: as a number it has
// more digits than many programs keep.
func (id MessageID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (id *MessageID) UnmarshalText(text []byte) error {
	m, n, err := ParseID(string(text))
	if err == nil && n >= 0 {
		err = fmt.Errorf("bad message id %q: want 16 hexadecimal digits", text)
	}
	*id = m
	return err
}

// MarshalText returns "MESSAGE.N".
func (id EnvelopeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (id *EnvelopeID) UnmarshalText(text []byte) error {
	m, n, err := ParseID(string(text))
	if err == nil && n < 0 {
		err = fmt.Errorf("bad envelope id %q: want MESSAGE.N", text)
	}
	*id = EnvelopeID{m, n}
	return err
}

// ParseID reads "MESSAGE" or "MESSAGE.N"; n is -1 when it was left out.
func ParseID(s string) (id MessageID, n int, err error) {
	text, num, dotted := strings.Cut(s, ".")
	v, err := strconv.ParseInt(text, 16, 64)
	if err != nil || len(text) != 16 {
		return 0, 0, fmt.Errorf("bad message id %q: want 16 hexadecimal digits, the first of them 0 to 7", s)
	}
	n = -1
	if dotted {
		if n, err = strconv.Atoi(num); err != nil || n < 0 {
			return 0, 0, fmt.Errorf("bad envelope id %q: want MESSAGE.N", s)
		}
	}
	return MessageID(v), n, nil
}

// Message is what is known of a message beside its body.
type Message struct {
	ID          MessageID `json:"id"`           // in a Submission: from an IDSource, or 0 and the queue chooses
	Sender      string    `json:"sender"`       // reverse-path without brackets; empty for null
	Size        int64     `json:"size"`         // of the stored body, bytes
	EightBit    bool      `json:"eight_bit"`    // BODY=8BITMIME was given
	UTF8        bool      `json:"utf8"`         // SMTPUTF8 was given
	RequireTLS  bool      `json:"require_tls"`  // REQUIRETLS was given (RFC 8689)
	TLSOptional bool      `json:"tls_optional"` // the header has TLS-Required: No
	// Priority is MT-PRIORITY (RFC 6710), MinPriority to MaxPriority.
	Priority int `json:"priority"`
	// Release is when the first attempt is due (FUTURERELEASE, RFC 4865); zero: at
	// once. The time of the envelopes begins then.
	Release   time.Time `json:"release,omitzero"`
	DeliverBy DeliverBy `json:"deliver_by,omitzero"`
	Ret       string    `json:"ret"`     // DSN RET: "FULL", "HDRS" or empty
	EnvID     string    `json:"envid"`   // DSN ENVID
	Session   string    `json:"session"` // id of the session that brought it, for logs
	User      string    `json:"user"`    // authenticated submitter
	Helo      string    `json:"helo"`
	Remote    string    `json:"remote"` // address of the peer as text
	Created   time.Time `json:"created"`
}

// DeliverBy is when a message is to be delivered, and what else happens then (RFC
// 2852): it is returned, or its sender is told that it is late.
type DeliverBy struct {
	Time   time.Time `json:"time"`   // zero: whenever it can be
	Notify bool      `json:"notify"` // by-mode N: go on, and tell the sender; else R: return it
	Trace  bool      `json:"trace"`  // by-trace: the sender is told when it is relayed
}

// Envelope is one final recipient of a message.
type Envelope struct {
	ID        EnvelopeID `json:"id"`
	Address   string     `json:"address"`   // after expansion
	Recipient string     `json:"recipient"` // as given in RCPT
	ORCPT     string     `json:"orcpt"`     // DSN ORCPT, "type;address" decoded, or empty
	Notify    string     `json:"notify"`    // DSN NOTIFY, comma-separated upper case, or empty
	Action    string     `json:"action"`
	Relay     bool       `json:"relay"`
	User      string     `json:"user"`    // local user
	Created   time.Time  `json:"created"` // when the time of its schedule began: it came, or was released
	Expires   time.Time  `json:"expires"`
	Attempts  int        `json:"attempts"`
	Next      time.Time  `json:"next"`       // next attempt
	LastError string     `json:"last_error"` // one line
	Held      bool       `json:"held"`       // no attempt until it is released, or retried by hand if its body is damaged
	HeldFor   string     `json:"held_for"`   // why, on one line
}

// Submission is a message with its recipients, as smtpd hands it over.
type Submission struct {
	Message    Message    // Size and Created are set by the queue
	Recipients []Envelope // ID.N, Created, Expires and schedule are set by the queue
	Spent      Times      // up to StepBody
}

// Client is what smtpd asks of the queue.
type Client interface {
	// Enqueue stores a message whose body is at most InlineBody bytes and
	// returns once it is durable. The body has CRLF line ends and no dot-stuffing; it
	// is not kept.
	Enqueue(ctx context.Context, s Submission, body []byte) error
	// Create begins a message of any size.
	Create(ctx context.Context) (Writer, error)
	// Accepting returns why no message is taken for longer than a moment; nil: they
	// are. It does not wait.
	Accepting() error
}

// Writer takes the body of one message. Exactly one of Commit and Abort ends it.
type Writer interface {
	// Write appends to the body; p is not kept.
	Write(p []byte) (int, error)
	// Commit stores the message and returns once it is durable.
	Commit(ctx context.Context, s Submission) error
	// Abort forgets what was written.
	Abort()
}

// Job is one message for one or more envelopes that go the same way: one action
// and, for relaying, one destination domain; one envelope for local delivery.
type Job struct {
	Message   Message
	Body      []byte // the whole body when it is at most InlineBody, else nil
	Envelopes []Envelope
	Domain    string           // relay: the destination domain, A-labels
	Delivery  *lookup.Delivery // local: what to do
	Paused    []Hold           // relay: routes that are paused as of now
	Urged     bool             // relay: somebody asked for this attempt: servers are tried that failed lately, too
}

// Outcome is what became of one attempt at one envelope.
type Outcome uint8

// The outcomes of an attempt.
const (
	Delivered Outcome = iota + 1
	Deferred          // try again later
	Failed            // never: bounce
	Returned          // not tried (worker stopping or busy): due again at once, no attempt counted
	Paused            // relay: not tried, since its route is paused: kept back by Result.Hold
)

// String is how logs name an outcome (OpenSMTPD's words).
func (o Outcome) String() string {
	switch o {
	case Delivered:
		return "Ok"
	case Failed:
		return "PermFail"
	case Returned:
		return "Returned"
	case Paused:
		return "Paused"
	}
	return "TempFail"
}

// Result reports one envelope of a job.
type Result struct {
	ID        EnvelopeID
	Outcome   Outcome
	Code      int       // SMTP reply code, or 0
	Enhanced  string    // "2.0.0", or empty
	Text      string    // reply text or error, any number of lines
	Remote    string    // host that said so, or empty when it is our own word
	Relayed   bool      // delivered to an SMTP server that takes over DSN duty (RFC 3461 5.2.2)
	NotBefore time.Time // Deferred: no attempt before, zero: the schedule's own
	Hold      int64     // Paused: the id of the Hold
	KeepsTime bool      // delivered to an SMTP server that goes on with DeliverBy
	Servers   string    // relay: what the destination's mail goes to, "host:port ..."
	Source    string    // relay: the address it is sent from, empty: the kernel's choice
	Window    int       // how many jobs of its destination the worker wants at once from now on; 0: it does not say
	Security  Security  // relay: of the connection
	Spent     Times     // StepRoute to StepTransfer
}

// Security tells how a message travelled, or was to travel. Levels are those of
// tls-policy rows; what is empty is not known.
type Security struct {
	Wanted string // level wanted at least
	By     string // who wanted it
	Had    string // level of the channel
}

// Worker is how mta and deliver processes take work. Jobs taken are leased to
// the connection that took them: when it ends, they are due again.
type Worker interface {
	// Take blocks until there is work, and returns at most max jobs.
	Take(ctx context.Context, max int) ([]Job, error)
	// Body returns up to max bytes of a body from offset; empty at the end.
	Body(ctx context.Context, id MessageID, offset int64, max int) ([]byte, error)
	// Done reports results; it returns once they are durable.
	Done(ctx context.Context, results []Result) error
}

// Admin is what the command line asks.
type Admin interface {
	// Find returns envelopes that a filter chooses, in order of id, after the given
	// one. Only a page without More is the last.
	Find(ctx context.Context, f Filter, after EnvelopeID, limit int) (Page, error)
	// Sorted is Find in another order. after is the Last of the page before; nil: the
	// first page.
	Sorted(ctx context.Context, f Filter, o Order, after *Place, limit int) (SortedPage, error)
	// Count counts the envelopes that a filter chooses by the values of up to four
	// fields, and tells of up to limit groups.
	Count(ctx context.Context, f Filter, by []Field, limit int) (Tally, error)
	// OpenBody opens a body whose checksum has been verified.
	OpenBody(ctx context.Context, id MessageID) (Body, error)
	// Steer does one thing to up to 500 envelopes; see Steer.
	Steer(ctx context.Context, s Steer) (Steered, error)
	// Export returns envelopes that a filter chooses, in order of id, after the given
	// one, with all that another queue needs of them.
	Export(ctx context.Context, e Export) (ExportPage, error)
	// Import takes over a message from another queue.
	Import(ctx context.Context, in Import) (Importer, error)
	// Show returns a message, its envelope n, or all when n < 0, and up to max bytes of
	// its body.
	Show(ctx context.Context, id MessageID, n, max int) (Shown, error)
	// Hold keeps mail back from now on; one that is there gets another reason.
	Hold(ctx context.Context, h Hold) (Hold, error)
	// Release ends a hold and returns how many envelopes are due for that.
	Release(ctx context.Context, kind HoldKind, value string) (int, error)
	// Holds lists the holds.
	Holds(ctx context.Context) ([]HeldCount, error)
	// Routes lists where relayed mail waits to go, or lately went.
	Routes(ctx context.Context) ([]Route, error)
	// Profile tells how long messages are in each stage.
	Profile(ctx context.Context) (Profile, error)
	// Trace tells the way of one of the last messages; rpc.ErrNotFound when it is
	// not remembered.
	Trace(ctx context.Context, id MessageID) (Trace, error)
	// Stats counts.
	Stats(ctx context.Context) (Stats, error)
}

// Listed is one line of a queue listing.
type Listed struct {
	Envelope Envelope `json:"envelope"`
	Sender   string   `json:"sender"`
	Size     int64    `json:"size"`
	InFlight bool     `json:"in_flight"`
	// Told by Find alone:
	Remote    string    `json:"remote"`            // address of the peer that brought it
	Login     string    `json:"login"`             // authenticated submitter
	Reporting bool      `json:"reporting"`         // only the report to the sender is left
	LastTry   time.Time `json:"last_try,omitzero"` // zero: none is known
}

// Shown is one message in full.
type Shown struct {
	Message   Message       `json:"message"`
	Envelopes []Envelope    `json:"envelopes"`
	Attempts  []PastAttempt `json:"attempts"` // the last of each envelope
	Body      []byte        `json:"body"`
	Truncated bool          `json:"truncated"`

	Active []EnvelopeID `json:"active"`          // that a worker has
	More   bool         `json:"more"`            // not all envelopes and attempts are told; asked for alone, each is
	Fault  string       `json:"fault,omitempty"` // why nothing of the body is shown
}

// Stats are counters since start, and the present depth.
type Stats struct {
	Fault     string `json:"fault,omitempty"` // why nothing is taken, changed or delivered
	Messages  int64  `json:"messages"`
	Envelopes int64  `json:"envelopes"`
	InFlight  int64  `json:"in_flight"`
	Enqueued  int64  `json:"enqueued"`
	Delivered int64  `json:"delivered"`
	Deferred  int64  `json:"deferred"`
	Failed    int64  `json:"failed"`
	Expired   int64  `json:"expired"`
	Removed   int64  `json:"removed"`
	Bounced   int64  `json:"bounced"`
}
