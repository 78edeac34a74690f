package queue

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"tabard/internal/bodycode"
)

// Errors of a Store, beside rpc.ErrNotFound and rpc.ErrNoSpace.
var (
	// ErrConflict means that a transaction broke a rule of the schema, such as a
	// message id that is taken. The same changes one by one may succeed in part.
	ErrConflict = errors.New("conflicts with what is stored")
	// ErrCorrupt means that what was read is not what was written.
	ErrCorrupt = errors.New("corrupt")
	// ErrBroken means that a sync failed, or that the database turned out to be
	// damaged: what was written may be gone without another sign. The store does
	// nothing more; whoever opens it anew finds what is durable.
	ErrBroken = errors.New("storage failed; it must be opened anew")
	// ErrReadOnly means that the store is open for inspection only.
	ErrReadOnly = errors.New("read-only")
)

// Store keeps messages and envelopes durably, in one dialect of SQL each. All
// methods are safe for concurrent use, except that Apply is called by one
// goroutine. A store belongs to one queue at a time.
type Store interface {
	CodedStore
	// Apply carries out all changes in one transaction and returns once that is
	// durable. After an error nothing of them is stored. It ignores the end of
	// ctx once it has begun.
	Apply(ctx context.Context, changes []*Change) error
	// Stage begins a body that is too large for a column.
	Stage() (Stage, error)
	// Writable returns why nothing can be stored, ErrBroken or ErrReadOnly; nil:
	// it can.
	Writable() error
	// Broken is closed when Writable becomes ErrBroken.
	Broken() <-chan struct{}
	// Due returns envelopes that may be tried, in order of their Cursor.
	Due(ctx context.Context, q DueQuery) ([]Stored, error)
	// Next returns the earliest next attempt in a lane after t; zero when there is none.
	Next(ctx context.Context, l Lane, t time.Time) (time.Time, error)
	// Abandoned returns up to limit envelopes after one, in order of id, that are claimed
	// by a process before this one, which will not end its claims. It may take a while.
	Abandoned(ctx context.Context, after EnvelopeID, limit int) ([]EnvelopeID, error)
	// Body opens a body whose checksum it has verified. ErrCorrupt: it is not
	// what was stored; rpc.ErrNotFound: there is no such message; a
	// bodycode.NoKeyError: it is encrypted under a key that is not at hand; a
	// bodycode.UnknownError: a newer version stored it.
	Body(ctx context.Context, id MessageID) (Body, error)
	// Envelopes returns every envelope of a message; none is not an error.
	Envelopes(ctx context.Context, id MessageID) ([]Stored, error)
	// Attempts returns what is known of the attempts at the envelopes of a message, in
	// order of envelope and number: the last KeptAttempts of each.
	Attempts(ctx context.Context, id MessageID) ([]PastAttempt, error)
	// Find returns envelopes that a query asks for, in its order.
	Find(ctx context.Context, q Query) ([]Stored, error)
	// Tally counts envelopes that a query asks for by the values of fields. Until is
	// not its business.
	Tally(ctx context.Context, q Query, by []Field) (Tally, error)
	// Imported reports whether a message came by an export, and is remembered.
	Imported(ctx context.Context, export string, id MessageID) (bool, error)
	// Holds returns the holds in order of id.
	Holds(ctx context.Context) ([]Hold, error)
	// Held counts envelopes by the hold that keeps them back.
	Held(ctx context.Context) (map[int64]int64, error)
	// Keeps reports whether a hold keeps any envelope back.
	Keeps(ctx context.Context, hold int64) (bool, error)
	// Backlog counts the relayed envelopes of up to limit destinations, those
	// with most of them first.
	Backlog(ctx context.Context, limit int) ([]Backlog, error)
	// Count begins to count what is stored at this moment. The function, which is to be
	// called once, ends that. It may take a while.
	Count(ctx context.Context) (func() (messages, envelopes int64, err error), error)
	// Depth counts the envelopes that are not claimed by age: those that came since
	// the first of the times, which go back, those that came between the first and
	// the second, and so on, and at last all older ones. It may take a while.
	Depth(ctx context.Context, now time.Time, since []time.Time) (Depth, error)
	Close() error
}

// Depth is how many envelopes a store has, by age.
type Depth struct {
	Due, Deferred, Held []int64
	Oldest              time.Time // when the oldest message came; zero: there is none
}

// ReleaseGrace is how long mail lives at least after a hold, or after damaged mail
// was made due by hand: it is tried again before it expires.
const ReleaseGrace = time.Hour

// Change is what must become durable together.
type Change struct {
	Insert []NewMessage
	Remove []EnvelopeID // messages go with their last envelope
	Update []Update
	Recode []Recoded
	Due    []EnvelopeID // made due at DueAt, and no longer held
	DueAt  time.Time
	Import *ImportMark  // of Insert or Attach; ErrConflict: it was imported before
	Free   []EnvelopeID // claims of a process before this one, that end
	Attach []Attached   // to messages that are there, and have the envelopes which Remove names, else ErrConflict

	Hold    []Hold  // added, or given another reason
	Release []int64 // holds that end: what they held is due at DueAt, and lives as much longer as it was held

	// Set by Apply.
	Affected int // envelopes removed, released or made due
	Messages int // messages removed

	// Set by the committer: how long the change waited for its transaction, and how
	// long that took.
	Waited, Took time.Duration
}

// NewMessage is a message on its way into the store.
type NewMessage struct {
	Message   Message
	Body      []byte // nil when it is staged
	Staged    bool   // the body was kept by a Stage under the message's id
	Checksum  uint32 // of the clear body
	Envelopes []NewEnvelope
	Encoding  bodycode.Encoding // how the body is stored: see CodedStore
	Spent     Times             // what smtpd knows; not stored
}

// NewEnvelope is an envelope on its way into the store.
type NewEnvelope struct {
	Envelope
	Destination string
	Lane        Lane
	Warned      int
	Hold        int64 // see Update; a hold that is there
	Notice      string
	Claimed     bool // it is in this queue's memory: Due leaves it out until it is updated, or a later process has freed it
}

// Update replaces the schedule of one envelope, whose claim ends with it.
type Update struct {
	ID        EnvelopeID
	Attempts  int
	Next      time.Time
	LastError string
	Warned    int
	Hold      int64 // 0, 1 for a damaged body, or the id of a hold; of one that is gone it is 0
	Notice    string
	Attempt   *PastAttempt // what came of an attempt; nil: there was none
}

// Stage takes a large body. Exactly one of Keep and Discard ends the writing;
// Discard after Keep takes the body away again.
type Stage interface {
	io.Writer
	// Keep makes the body durable under the id of a message that is to follow.
	Keep(id MessageID) error
	Discard()
	// Encoding is how the body is stored.
	Encoding() bodycode.Encoding
}

// Body is a stored body, open for reading.
type Body interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Backlog is what is stored of one destination.
type Backlog struct {
	Destination string
	Action      string
	Waiting     int64 // envelopes, those that are held included
	Held        int64
	Next        time.Time // the earliest attempt
	LastError   string    // of one of them
}

// DueQuery asks for envelopes that are due.
type DueQuery struct {
	Lane        Lane
	Now         time.Time
	After       Cursor   // where the last query ended
	Destination string   // only this one; empty: all but Except
	Except      []string // destinations
	Limit       int
}

// Cursor is a place in the order of attempts: time, destination, id.
type Cursor struct {
	Next        time.Time
	Destination string
	ID          EnvelopeID
}

// Stored is an envelope as it is stored. Envelopes of one message that were
// read together share Message.
type Stored struct {
	Envelope
	Message     *Message
	Destination string
	Lane        Lane
	Warned      int
	Hold        int64 // see Update
	Notice      string
	Claimed     bool      // only told by Find: see NewEnvelope; not by a process before
	LastTry     time.Time // only told by Find; zero: none is known
}

func (s *Stored) cursor() Cursor {
	return Cursor{Next: s.Next, Destination: s.Destination, ID: s.ID}
}

// Checksum continues the checksum sum, at first 0, over p: CRC-32C (RFC 3720),
// which finds what disks and memory do to a body.
func Checksum(sum uint32, p []byte) uint32 {
	return crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), p)
}
