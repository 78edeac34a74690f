package queue

import (
	"slices"
	"strings"
)

// expansion is what the envelopes have in common that one recipient became.
type expansion struct{ recipient, orcpt, notify string }

// reportExpansions sees to it that a sender who asked for SUCCESS is told of every
// recipient that became several (RFC 3461 section 5.2.7.3): by an envelope of which
// only that report is left. The members are not reported as well: their SUCCESS goes.
func (m *NewMessage) reportExpansions() {
	var count map[expansion]int
	var order []expansion
	for i := range m.Envelopes {
		e := &m.Envelopes[i].Envelope
		if !e.wants("SUCCESS") || e.Recipient == "" {
			continue
		}
		if count == nil {
			count = make(map[expansion]int)
		}
		x := expansion{e.Recipient, e.ORCPT, e.Notify}
		if count[x]++; count[x] == 2 {
			order = append(order, x)
		}
	}
	if len(order) == 0 {
		return
	}
	for i := range m.Envelopes {
		e := &m.Envelopes[i].Envelope
		if count[expansion{e.Recipient, e.ORCPT, e.Notify}] > 1 {
			e.Notify = withoutSuccess(e.Notify)
		}
	}
	for _, x := range order {
		m.Envelopes = append(m.Envelopes, m.expanded(x))
	}
}

func (m *NewMessage) expanded(x expansion) NewEnvelope {
	first := &m.Envelopes[0]
	n := notice{Kind: kindExpanded, At: first.Created}
	return NewEnvelope{
		Envelope: Envelope{
			ID: EnvelopeID{m.Message.ID, len(m.Envelopes)}, Address: x.recipient, Recipient: x.recipient,
			ORCPT: x.orcpt, Notify: x.notify, Created: first.Created, Expires: first.Expires, Next: first.Next,
		},
		Destination: destinationKey(&Envelope{}, false),
		Lane:        first.Lane,
		Notice:      n.encode(),
	}
}

// withoutSuccess takes SUCCESS out of a NOTIFY value. Nothing left is not the same as
// no NOTIFY, which means failures and delays.
func withoutSuccess(notify string) string {
	words := slices.DeleteFunc(strings.Split(notify, ","), func(w string) bool { return w == "SUCCESS" })
	if len(words) == 0 {
		return "NEVER"
	}
	return strings.Join(words, ",")
}
