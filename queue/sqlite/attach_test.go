package sqlite

import (
	"errors"
	"path/filepath"
	"testing"

	"tabard/queue"
)

// What was removed by hand meanwhile does not come back under another address, and no
// envelope is there without its message.
func TestAttachInPlaceOfNothing(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	c := put(7, "d")
	m, e := c.Insert[0].Message, c.Insert[0].Envelopes[0]
	apply(t, s, c)
	apply(t, s, &queue.Change{Remove: []queue.EnvelopeID{e.ID}})
	old := e.ID
	e.ID.N++
	err := s.Apply(t.Context(), []*queue.Change{{Attach: []queue.Attached{{Message: &m, NewEnvelope: e}}, Remove: []queue.EnvelopeID{old}}})
	if !errors.Is(err, queue.ErrConflict) {
		t.Errorf("Apply: %v", err)
	}
	if messages, envelopes, err := s.count(t.Context()); messages != 0 || envelopes != 0 || err != nil {
		t.Errorf("%d messages, %d envelopes, %v", messages, envelopes, err)
	}
}
