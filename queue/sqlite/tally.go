package sqlite

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"tabard/queue"
)

// tallyPage is how many envelopes of a damaged database are counted at once.
const tallyPage = 500

// Tally implements queue.Store. When not all can be read, it counts what Find finds.
func (s *Inspection) Tally(ctx context.Context, q queue.Query, by []queue.Field) (queue.Tally, error) {
	t, err := s.Store.Tally(ctx, q, by)
	if err == nil || ctx.Err() != nil {
		return t, err
	}
	groups := make(map[string]*queue.Group)
	page := q
	for page.Limit = tallyPage; ; {
		rows, err := s.Find(ctx, page)
		if err != nil {
			return queue.Tally{}, err
		}
		if len(rows) == 0 {
			return tallied(groups, q.Limit), nil
		}
		page.After = rows[len(rows)-1].ID
		for i := range rows {
			addRow(groups, &rows[i], &q, by)
		}
	}
}

// addRow counts an envelope among those with the same values.
func addRow(groups map[string]*queue.Group, r *queue.Stored, q *queue.Query, by []queue.Field) {
	values := make([]string, len(by))
	for i, f := range by {
		values[i] = valueOf(f, r, q)
	}
	key := jsonText(values)
	g := groups[key]
	if g == nil {
		g = &queue.Group{Values: values, Oldest: r.Created}
		groups[key] = g
	}
	g.Envelopes++
	if r.Created.Before(g.Oldest) {
		g.Oldest = r.Created
	}
}

// valueOf is what fieldText is in SQL. That would read the row again, and more beside
// it, which may be damaged.
func valueOf(f queue.Field, r *queue.Stored, q *queue.Query) string {
	domain := func(s string) string { return strings.ToLower(s[strings.LastIndexByte(s, '@')+1:]) }
	switch f {
	case queue.FieldSender:
		return r.Message.Sender
	case queue.FieldSenderDomain:
		return domain(r.Message.Sender)
	case queue.FieldRecipient:
		return r.Address
	case queue.FieldGiven:
		return r.Recipient
	case queue.FieldDomain:
		return domain(r.Address)
	case queue.FieldDestination:
		return r.Destination
	case queue.FieldAction:
		return r.Action
	case queue.FieldError:
		return r.LastError
	case queue.FieldAttempts:
		return strconv.Itoa(r.Attempts)
	case queue.FieldState:
		return string(stateOf(r, q))
	}
	return ""
}

// stateOf is what stateText is in SQL.
func stateOf(r *queue.Stored, q *queue.Query) queue.State {
	switch {
	case r.Hold > 0:
		return queue.StateHeld
	case slices.Contains(q.Active, r.ID):
		return queue.StateActive
	case !r.Next.After(q.Now):
		return queue.StateDue
	}
	return queue.StateDeferred
}

// tallied makes the answer of what was counted.
func tallied(groups map[string]*queue.Group, limit int) queue.Tally {
	t := queue.Tally{Partial: true, All: int64(len(groups))}
	for _, g := range groups {
		t.Envelopes += g.Envelopes
		t.Groups = append(t.Groups, *g)
	}
	slices.SortFunc(t.Groups, func(a, b queue.Group) int {
		return cmp.Or(cmp.Compare(b.Envelopes, a.Envelopes), slices.CompareFunc(a.Values, b.Values, strings.Compare))
	})
	t.Groups = t.Groups[:min(limit, len(t.Groups))]
	return t
}
