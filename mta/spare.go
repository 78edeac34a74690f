package mta

import (
	"context"
	"slices"
	"time"
)

// spare finds a session when there is no further one, for the reason given: servers
// bear only so many. It waits for one of those that are open and would do, as long
// as there is one, and no longer than a connection may take. If none comes free in
// time the message goes back as untried: its servers take mail.
func (m *MTA) spare(stop context.Context, d *destination, begun time.Time, fail *failure) (*session, *failure) {
	if len(m.lanes.open(d.pool)) == 0 {
		return nil, fail
	}
	if fail.mood == down {
		m.lanes.strained(d.key, begun)
		fail.mood = trouble // those that are open still work
	}
	untried := false
	ctx, cancel := context.WithTimeout(stop, m.cfg.Timeouts.Connect)
	defer cancel()
	k := m.seek(ctx, d, true)
	for ctx.Err() == nil {
		news := m.idle.watch(d.pool)
		if s := m.reuse(k); s != nil {
			return s, nil
		}
		one := func(s *session) bool {
			_, ok := k.suits(s)
			return ok
		}
		if !slices.ContainsFunc(m.lanes.open(d.pool), one) {
			break
		}
		untried = true
		select {
		case <-news:
		case <-ctx.Done():
		}
	}
	if untried {
		fail = returned("no further session: " + fail.text)
		fail.mood = trouble
	}
	return nil, fail
}
