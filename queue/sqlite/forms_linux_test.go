package sqlite

import (
	"context"
	"fmt"
	"testing"

	"tabard/internal/bodycode"
	"tabard/queue"
)

// form is how a story's bodies are stored.
type form struct {
	name        string
	first, then *bodycode.Coder // as what comes is stored, and after the rotation; nil: as it is, and none
	end         string          // how they are stored when nothing failed
	samples     int             // of the points of a fault, without --long
}

// plainForm is that of bodies which are stored as they are.
var plainForm = form{name: "plain", end: "=4", samples: 6}

// forms are the forms that outlive faults: bodies as they are, and compressed and
// encrypted ones whose key changes in the middle of the story.
func forms(t testing.TB) []form {
	t.Helper()
	old, both := keys(t)
	coded := form{
		name: "compressed and encrypted", samples: 8,
		first: coder(t, bodycode.Options{Compress: true, Encrypt: true, Keys: old}),
		then:  coder(t, bodycode.Options{Compress: true, Encrypt: true, Keys: both}),
	}
	coded.end = fmt.Sprintf("%s=4", coded.then.Encoding())
	return []form{plainForm, coded}
}

// opens gives a store what opens bodies of the form.
func (f form) opens(s *Store) {
	if f.then != nil {
		s.SetCoder(f.then)
	}
}

// rotate puts the second key in force, and stores what is there anew, as far as the
// disk lets it.
func (s *story) rotate() {
	if s.form.then == nil {
		return
	}
	s.q.SetCoder(s.form.then)
	var r queue.RecodeRequest
	for range 100 {
		reply, err := s.q.Recode(context.Background(), r)
		if s.said(err) != nil {
			return
		}
		if reply.End {
			s.done("rotated", 0)
			return
		}
		r.From, r.After = reply.From, reply.After
	}
	s.endless = true
}
