// Package textlog reads the text logs of Tabard, OpenSMTPD and Postfix, and makes
// events of the event log of them.
//
// The name of an event (At and Key) comes from the line that it was made of alone: its
// time, its host and its text. So a log that is read twice, or in parts that overlap,
// gives the same events again, which a store keeps once. What lines before it said, such
// as the sender of a message, adds to an event but does not name it.
package textlog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"tabard/internal/eventlog"
)

// Format is a program whose log is read; also the Process of its events.
type Format string

// The formats.
const (
	Auto      Format = "" // each line is taken for what it looks like
	Tabard    Format = "tabard"
	OpenSMTPD Format = "opensmtpd"
	Postfix   Format = "postfix"
)

// Formats lists those that can be forced.
func Formats() []Format { return []Format{Tabard, OpenSMTPD, Postfix} }

// ErrNotUnderstood marks a line that is none of a log, or that says something unknown
// where every line has a meaning.
var ErrNotUnderstood = errors.New("not understood")

func misread(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotUnderstood, fmt.Sprintf(format, args...))
}

// Options of a Reader.
type Options struct {
	Format Format
	// Zone is that of times that name none. Default: UTC.
	Zone *time.Location
	// Node is the host of lines that name none.
	Node string
}

// Stats counts lines.
type Stats struct {
	Lines   int64 // all
	Others  int64 // of programs that handle no mail, or of another format than the one wanted
	Unknown int64 // not understood
}

// Reader makes events of lines. What it remembers of lines before is bounded. It is for
// one goroutine.
type Reader struct {
	opts    Options
	emit    func(eventlog.Event) error
	failure error // of emit
	stats   Stats
	clock   clock
	now     line // the one that is read
	key     [sha256.Size]byte

	second time.Time // of lines so far
	same   map[[sha256.Size]byte]int

	smtp    *dialect // of OpenSMTPD's words, which Tabard has, too
	postfix *postfix
}

// New returns a reader that gives its events to emit, whose error ends the reading.
func New(o Options, emit func(eventlog.Event) error) *Reader {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	r := &Reader{opts: o, emit: emit, same: map[[sha256.Size]byte]int{}}
	r.clock.zone = o.Zone
	r.smtp = newDialect(r)
	r.postfix = newPostfix(r)
	return r
}

// Begin says that a file begins, in which no line is later than latest. If year is not
// 0 it is the year of its first line that names none.
func (r *Reader) Begin(latest time.Time, year int) {
	r.clock = clock{zone: r.opts.Zone, latest: latest, year: year}
	r.second = time.Time{} // the end of the file before may come again
}

// Line reads one line, without its end. An error that is no ErrNotUnderstood is emit's.
func (r *Reader) Line(text string) error {
	r.stats.Lines++
	err := r.read(strings.TrimRight(text, "\r\n"))
	if r.failure != nil {
		return r.failure
	}
	if errors.Is(err, errOther) {
		r.stats.Others++
		return nil
	}
	if err != nil {
		r.stats.Unknown++
	}
	return err
}

// Finish gives the events that waited for more lines about them.
func (r *Reader) Finish() error {
	r.smtp.finish()
	r.postfix.finish()
	return r.failure
}

// Stats returns the counts so far.
func (r *Reader) Stats() Stats { return r.stats }

// errOther is a line of another program.
var errOther = errors.New("another program's")

func (r *Reader) read(text string) error {
	if text == "" {
		return errOther
	}
	l, err := r.clock.prefix(text)
	if err != nil {
		return err
	}
	if l.host == "" {
		l.host = r.opts.Node
	}
	f := l.format
	if f == Auto {
		f = r.opts.Format
	}
	if f == Auto || r.opts.Format != Auto && f != r.opts.Format {
		return errOther
	}
	if l.text != "" && l.text[0] != '{' {
		r.name(&l, f) // an object has its time in it
	}
	switch f {
	case Tabard:
		return r.tabardLine(&l)
	case OpenSMTPD:
		return r.opensmtpdLine(&l)
	case Postfix:
		return r.postfix.line(&l)
	}
	return errOther
}

// name makes the name of the events of a line. Lines that are the same in one instant
// are told from each other by their number.
func (r *Reader) name(l *line, f Format) {
	if r.second.IsZero() || !l.at.Equal(r.second) {
		r.second = l.at
		clear(r.same)
	}
	l.format = f
	r.now = *l
	h := sha256.Sum256([]byte(l.host + "\x00" + l.program + "\x00" + l.pid + "\x00" + l.text))
	n := r.same[h]
	if len(r.same) < maxSame || n > 0 {
		r.same[h] = n + 1
	}
	r.key = sha256.Sum256(binary.BigEndian.AppendUint64(h[:], uint64(n))) //nolint:gosec // a small count
}

// maxSame bounds how many lines of one instant are told from each other.
const maxSame = 10_000

// head names an event of the line that is read; what says which of the line's.
func (r *Reader) head(what string) eventlog.Head {
	k := sha256.Sum256(append(r.key[:], what...))
	return eventlog.Head{
		At: r.now.at, Key: int64(binary.BigEndian.Uint64(k[:8])), //nolint:gosec // a name
		Node: r.now.host, Process: string(r.now.format),
	}
}

// id makes an id of a session that has none in the log: of the line that it began with, and
// of its time, because a process gets the same client again.
func (r *Reader) id() string {
	k := sha256.Sum256(binary.BigEndian.AppendUint64(r.key[:], uint64(r.now.at.UnixMilli()))) //nolint:gosec // any number will do
	return fmt.Sprintf("%x", k[:8])
}

// give hands an event on.
func (r *Reader) give(e eventlog.Event) {
	if r.failure == nil {
		eventlog.Clean(e)
		r.failure = r.emit(e)
	}
}
