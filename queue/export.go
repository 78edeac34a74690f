package queue

import (
	"context"
	"fmt"

	"tabard/internal/rpc"
)

// Portable is an envelope with all that another queue needs to go on with it.
type Portable struct {
	Envelope
	Warned  int    `json:"warned"`            // of delays, as the store counts
	Outcome string `json:"outcome,omitempty"` // of the last attempt, as the store has it
}

// Exported is an envelope as it is at the moment.
type Exported struct {
	Portable       // Held and HeldFor are about other holds than Export.Own
	InFlight  bool // it is being delivered
	Reporting bool // only the report to its sender is left of it, which this queue owes
	Own       bool // it is held with the reason Export.Own
}

// Export asks for envelopes.
type Export struct {
	Filter Filter
	After  EnvelopeID // where the last page ended
	Limit  int
	Own    string // the reason with which the export has held them
}

// ExportPage is a part of an export.
type ExportPage struct {
	Messages  []Message // of the envelopes, each once, in order of id
	Envelopes []Exported
	More      bool // there may be more after the last one
}

// Export implements Admin. A page has what one answer carries.
func (q *Queue) Export(ctx context.Context, e Export) (ExportPage, error) {
	if e.Limit < 1 {
		return ExportPage{}, fmt.Errorf("%w: export %d envelopes", rpc.ErrInvalid, e.Limit)
	}
	query, err := q.query(e.Filter, false)
	if err != nil {
		return ExportPage{}, err
	}
	query.After, query.Limit = e.After, min(e.Limit, maxSteer)
	rows, err := q.store.Find(ctx, query)
	if err != nil {
		return ExportPage{}, err
	}
	page := ExportPage{More: len(rows) == query.Limit}
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	size := 0
	for i := range rows {
		r := &rows[i]
		if size += 600 + textSize(&r.Envelope) + len(r.HeldFor) + len(r.Notice); i > 0 && size > wireBytes {
			page.More = true
			break
		}
		if n := len(page.Messages); n == 0 || page.Messages[n-1].ID != r.ID.Message {
			page.Messages = append(page.Messages, *r.Message)
			size += 600 + len(r.Message.Sender) + len(r.Message.User) + len(r.Message.Helo)
		}
		page.Envelopes = append(page.Envelopes, q.exported(r, e.Own))
	}
	return page, nil
}

// exported tells all of an envelope. Needs active.mu.
func (q *Queue) exported(r *Stored, own string) Exported {
	e := Exported{Portable: Portable{Envelope: r.Envelope, Warned: r.Warned}}
	row := *r
	if e.Own = own != "" && q.handHeld(r, own); e.Own {
		row.Hold = 0
	}
	held := q.why(&row)
	e.Held, e.HeldFor = held.Held, held.HeldFor
	it := q.active.items[r.ID]
	e.InFlight = it != nil && it.job != nil
	note, last := parseNotice(r.Notice)
	e.Reporting = note != nil
	if last != nil {
		e.Outcome = last.encode()
	}
	return e
}
