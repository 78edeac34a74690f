package queue

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"tabard/internal/address"
)

// maxRoutes bounds one answer of Routes.
const maxRoutes = 1000

// Route is where relayed mail waits to go, or lately went.
type Route struct {
	Action    string
	Domain    string // empty: the action has the same relay hosts for all
	Servers   string // "host:port ..." when something went there since the start
	Source    string // address that mail is sent from; empty: not set
	Waiting   int64  // envelopes, those that are held included
	Held      int64
	InFlight  int       // jobs that mta has
	Window    int       // how many it may have; 0: it did not say yet
	LastError string    // of an attempt since the start, else of one of the envelopes
	Until     time.Time // no attempt before; zero: none is known
	Paused    string    // why nothing is sent there; empty: it is
}

// noteRoute keeps what a result tells of the way to a destination.
func (d *destination) noteRoute(r *Result) {
	if r.Servers != "" {
		d.servers, d.source = r.Servers, r.Source
	}
	switch r.Outcome {
	case Delivered:
		d.until, d.lastError = time.Time{}, ""
	case Failed:
		d.until = time.Time{}
	case Deferred:
		d.until, d.lastError = r.NotBefore, address.OneLine(errorText(r), maxErrorText)
	}
}

// Routes implements Admin. It returns up to 1,000, those with most mail first.
func (q *Queue) Routes(ctx context.Context) ([]Route, error) {
	backlog, err := q.store.Backlog(ctx, maxRoutes)
	if err != nil {
		return nil, err
	}
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := make(map[string]bool, len(backlog))
	var list []Route
	for _, b := range backlog {
		seen[b.Destination] = true
		r := Route{Action: b.Action, Waiting: b.Waiting, Held: b.Held, LastError: b.LastError}
		q.fill(&r, b.Destination)
		list = append(list, r)
	}
	for key := range a.paces {
		if !seen[key] && len(list) < maxRoutes {
			action := key[:max(0, strings.LastIndexByte(key, '/'))]
			if action == "" {
				action = key
			}
			r := Route{Action: action}
			q.fill(&r, key)
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b Route) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Domain, b.Domain))
	})
	return list, nil
}

// fill adds what is in memory of a destination. Needs active.mu.
func (q *Queue) fill(r *Route, key string) {
	r.Domain = strings.TrimPrefix(strings.TrimPrefix(key, r.Action), "/")
	p := q.active.paces[key]
	if d := q.active.destinations[key]; d != nil {
		p, r.InFlight = d.pace, d.leased
	}
	r.Servers, r.Source, r.Window = p.servers, p.source, p.window
	if p.lastError != "" {
		r.LastError = p.lastError
	}
	if p.until.After(time.Now()) {
		r.Until = p.until
	}
	for _, h := range q.holds {
		if h.pauses(r) {
			r.Paused = h.String()
			break
		}
	}
}

// pauses reports whether h keeps all mail of a route back.
func (h *Hold) pauses(r *Route) bool {
	switch h.Kind {
	case HoldRule:
		return h.Value == r.Action
	case HoldDestination:
		return h.Value == r.Domain
	case HoldRoute:
		if h.Value == r.Domain {
			return true
		}
		servers := strings.Fields(r.Servers)
		return len(servers) > 0 && !slices.ContainsFunc(servers, func(s string) bool { return !h.Over(s) })
	}
	return false
}

// Over reports whether a hold of a route names the server "host:port".
func (h *Hold) Over(server string) bool {
	host := server
	if i := strings.LastIndexByte(server, ':'); i >= 0 {
		host = strings.Trim(server[:i], "[]")
	}
	return h.Kind == HoldRoute && (h.Value == server || h.Value == host)
}
