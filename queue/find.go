package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tabard/internal/rpc"
)

// Query is what a store is asked for: envelopes of a filter that has been checked.
type Query struct {
	Filter
	Now    time.Time
	Active []EnvelopeID // what workers have; only set if the filter, or what is counted by, tells of states
	Holds  []int64      // that hold for one of the filter's reasons, if it has some
	After  EnvelopeID   // where the last page ended
	Limit  int

	Order      Order  // without By: that of id
	AfterPlace *Place // with an Order: instead of After; nil: from the beginning
}

// Page is a part of a listing, in order of id.
type Page struct {
	List []Listed
	More bool // there may be more after the last one
}

// Group is how many envelopes have the same values in some fields.
type Group struct {
	Values    []string // of the fields, in their order
	Envelopes int64
	Oldest    time.Time // when the oldest was accepted
}

// Tally is what Count counted.
type Tally struct {
	Groups    []Group // those with most envelopes first
	All       int64   // groups, also those that are left out
	Envelopes int64   // in all of them
	Until     MessageID
	Partial   bool // the store is damaged: only what could be read is counted
}

const (
	maxFields = 4
	maxGroups = 1000 // in one answer
)

// Find implements Admin. A page has 1,000 envelopes at most.
func (q *Queue) Find(ctx context.Context, f Filter, after EnvelopeID, limit int) (Page, error) {
	if limit < 1 {
		return Page{}, fmt.Errorf("%w: list %d envelopes", rpc.ErrInvalid, limit)
	}
	query, err := q.query(f, false)
	if err != nil {
		return Page{}, err
	}
	query.After, query.Limit = after, min(limit, maxList)
	rows, err := q.store.Find(ctx, query)
	if err != nil {
		return Page{}, err
	}
	return Page{List: q.listed(rows), More: len(rows) == query.Limit}, nil
}

// listed says of rows what a listing does.
func (q *Queue) listed(rows []Stored) []Listed {
	list := make([]Listed, len(rows))
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, r := range rows {
		it := a.items[r.ID]
		note, _ := parseNotice(r.Notice)
		list[i] = Listed{
			Envelope: q.why(&r), Sender: r.Message.Sender, Size: r.Message.Size, InFlight: it != nil && it.job != nil,
			Remote: r.Message.Remote, Login: r.Message.User, Reporting: note != nil, LastTry: r.LastTry,
		}
	}
	return list
}

// query makes the question for a store of a filter that somebody asks with.
func (q *Queue) query(f Filter, states bool) (Query, error) {
	if err := f.Check(); err != nil {
		return Query{}, err
	}
	query := Query{Filter: f, Now: time.Now(), Holds: q.holdsFor(f.HeldFor)}
	if states || len(f.States) > 0 {
		a := q.active
		a.mu.Lock()
		for id, it := range a.items {
			if it.job != nil {
				query.Active = append(query.Active, id)
			}
		}
		a.mu.Unlock()
	}
	return query, nil
}

// Count implements Admin. Up to 1,000 groups are told.
func (q *Queue) Count(ctx context.Context, f Filter, by []Field, limit int) (Tally, error) {
	if limit < 1 || len(by) > maxFields {
		return Tally{}, fmt.Errorf("%w: count %d groups by %d fields, want up to %d fields", rpc.ErrInvalid, limit, len(by), maxFields)
	}
	for _, field := range by {
		if !slices.Contains(Fields(), field) {
			return Tally{}, fmt.Errorf("%w: count by %.30q: want some of %v", rpc.ErrInvalid, field, Fields())
		}
	}
	query, err := q.query(f, slices.Contains(by, FieldState))
	if err != nil {
		return Tally{}, err
	}
	until := q.ids.Next()
	query.Limit = min(limit, maxGroups)
	t, err := q.store.Tally(ctx, query, by)
	t.Until = until
	return t, err
}
