package queue

import (
	"context"
	"fmt"
	"slices"

	"tabard/internal/rpc"
)

// Order is how a listing is sorted: what has the least first, and of what has the
// same, what came first.
type Order struct {
	By      SortKey
	Reverse bool // what has the most first
}

// SortKey is what envelopes are sorted by.
type SortKey string

// The keys of an order. Texts are compared byte by byte.
const (
	SortAge         SortKey = "age"
	SortNext        SortKey = "next" // attempt
	SortSize        SortKey = "size" // of the message
	SortAttempts    SortKey = "attempts"
	SortSender      SortKey = "sender"
	SortRecipient   SortKey = "recipient"
	SortDestination SortKey = "destination"
)

// SortKeys returns all keys.
func SortKeys() []SortKey {
	return []SortKey{SortAge, SortNext, SortSize, SortAttempts, SortSender, SortRecipient, SortDestination}
}

// Place is where an envelope stands in an order.
type Place struct {
	Number int64 // of its key,
	Text   string
	ID     EnvelopeID
}

// place returns where an envelope stands.
func (o Order) place(r *Stored) Place {
	p := Place{ID: r.ID}
	switch o.By {
	case SortAge:
		p.Number = -r.Created.UnixMilli()
	case SortNext:
		p.Number = r.Next.UnixMilli()
	case SortSize:
		p.Number = r.Message.Size
	case SortAttempts:
		p.Number = int64(r.Attempts)
	case SortSender:
		p.Text = r.Message.Sender
	case SortRecipient:
		p.Text = r.Address
	case SortDestination:
		p.Text = r.Destination
	}
	return p
}

// SortedPage is a part of a sorted listing.
type SortedPage struct {
	List []Listed
	Last Place // of the last one
	More bool  // there may be more after it
}

// Sorted implements Admin. A page has 1,000 envelopes at most, and what one answer
// carries. Each is a question of its own to the store, which has no more than a page
// in memory.
func (q *Queue) Sorted(ctx context.Context, f Filter, o Order, after *Place, limit int) (SortedPage, error) {
	if limit < 1 {
		return SortedPage{}, fmt.Errorf("%w: list %d envelopes", rpc.ErrInvalid, limit)
	}
	if !slices.Contains(SortKeys(), o.By) {
		return SortedPage{}, fmt.Errorf("%w: sort by %.30q", rpc.ErrInvalid, o.By)
	}
	query, err := q.query(f, false)
	if err != nil {
		return SortedPage{}, err
	}
	query.Order, query.AfterPlace, query.Limit = o, after, min(limit, maxList)
	rows, err := q.store.Find(ctx, query)
	if err != nil || len(rows) == 0 {
		return SortedPage{}, err
	}
	list := q.listed(rows)
	n := carried(list)
	return SortedPage{List: list[:n], Last: o.place(&rows[n-1]), More: n < len(rows) || len(rows) == query.Limit}, nil
}

type sortedRequest struct {
	Filter Filter
	Order  Order
	After  *Place
	Limit  int
}

// Sorted serves Admin.Sorted.
func (s *adminService) Sorted(c *rpc.Call[sortedRequest], r *rpc.Reply[SortedPage]) error {
	return rpc.Do(c, r, func(ctx context.Context, req sortedRequest) (SortedPage, error) {
		return s.admin.Sorted(ctx, req.Filter, req.Order, req.After, req.Limit)
	})
}

// Sorted implements Admin.
func (a *remoteAdmin) Sorted(ctx context.Context, f Filter, o Order, after *Place, limit int) (SortedPage, error) {
	return rpc.Invoke[sortedRequest, SortedPage](ctx, a.caller, "QueueAdmin.Sorted", sortedRequest{f, o, after, limit})
}
