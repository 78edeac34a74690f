package lookup

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"tabard/internal/address"
	"tabard/table"
)

// SourceState says whether a table's source answers.
type SourceState string

// The states of a source.
const (
	SourceUnasked SourceState = "unasked" // nothing is known yet
	SourceUp      SourceState = "up"
	SourceDown    SourceState = "down"
)

// Source is how the source of a table does. Counts are since the table was opened.
type Source struct {
	State     SourceState `json:"state"`
	Since     time.Time   `json:"since"`     // of the state
	Questions int64       `json:"questions"` // put to it
	Errors    int64       `json:"errors"`    // of them, those that it failed
	// LastError is the last failure, in one line, and LastErrorAt when that was.
	// Both remain when it answers again.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// manyFailures in a row, or one that is no matter of a single row, mean that a
// source is down. It is what caches think, too.
const manyFailures = 3

// maxFault bounds the text of an error that is shown, in bytes.
const maxFault = 400

// health keeps a Source. What it costs a question that is answered is an addition.
type health struct {
	clock  func() time.Time
	asked  atomic.Int64
	errors atomic.Int64
	logins atomic.Int64 // of asked, those that no cache sees
	well   atomic.Bool  // the last that was heard is an answer

	mu    sync.Mutex
	now   Source
	inRow int       // failures since the last answer
	first time.Time // of them
}

func newHealth(clock func() time.Time) *health {
	return &health{clock: clock, now: Source{State: SourceUnasked, Since: clock()}}
}

// note takes the outcome of one question. Questions that cannot be asked of the
// source, and those that their callers gave up, say nothing about it.
func (h *health) note(err error) {
	switch {
	case errors.Is(err, table.ErrUnsupported) || errors.Is(err, table.ErrKey) || errors.Is(err, context.Canceled):
		return
	case err == nil || errors.Is(err, table.ErrNotFound):
		h.asked.Add(1)
		h.answers()
		return
	}
	h.asked.Add(1)
	h.errors.Add(1)
	weight := 1
	if errors.Is(err, context.DeadlineExceeded) {
		weight = manyFailures
	}
	h.fail(err, weight)
}

// lost says that the source cannot be reached, or broke off.
func (h *health) lost(err error) { h.fail(err, manyFailures) }

func (h *health) fail(err error, weight int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.well.Store(false)
	at := h.clock()
	if h.inRow == 0 {
		h.first = at
	}
	h.inRow += weight
	h.now.LastError, h.now.LastErrorAt = address.OneLine(err.Error(), maxFault), at
	if h.inRow >= manyFailures && h.now.State != SourceDown {
		h.now.State, h.now.Since = SourceDown, h.first
	}
}

// answers says that the source does.
func (h *health) answers() {
	if h.well.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.well.Store(true)
	h.inRow = 0
	if h.now.State != SourceUp {
		h.now.State, h.now.Since = SourceUp, h.clock()
	}
}

func (h *health) source() Source {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.now
	s.Questions, s.Errors = h.asked.Load(), h.errors.Load()
	return s
}
