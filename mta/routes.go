package mta

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strings"

	"tabard/internal/rpc"
	"tabard/queue"
)

// Lane is how one set of servers does, as `tabard route ls` shows it.
type Lane struct {
	Servers  string // "host:port ...", as in queue.Route
	Limit    int    // messages that may be on their way at once, at the moment
	Busy     int    // those that are
	Waiting  int    // jobs that wait for a place
	Sessions int    // open connections, also such as wait for more mail
}

// Routes is what the command line asks of a running mta.
type Routes interface {
	// Lanes lists the sets of servers that mail lately went to, up to 1,000.
	Lanes(ctx context.Context) ([]Lane, error)
}

var _ Routes = (*MTA)(nil)

const (
	nameRoutes = "MTARoutes"
	maxLanes   = 1000
	maxServers = 500 // bytes of their names
)

// RegisterRoutes serves r on s.
func RegisterRoutes(s *rpc.Server, r Routes) error { return s.Register(nameRoutes, &routesEdge{r}) }

// NewRoutes returns the Routes behind a connection with RegisterRoutes.
func NewRoutes(c rpc.Caller) Routes { return remoteRoutes{c} }

type routesEdge struct{ r Routes }

// Lanes serves Routes.Lanes.
func (e *routesEdge) Lanes(c *rpc.Call[rpc.None], r *rpc.Reply[[]Lane]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) ([]Lane, error) { return e.r.Lanes(ctx) })
}

type remoteRoutes struct{ c rpc.Caller }

// Lanes implements Routes.
func (r remoteRoutes) Lanes(ctx context.Context) ([]Lane, error) {
	return rpc.Invoke[rpc.None, []Lane](ctx, r.c, nameRoutes+".Lanes", rpc.None{})
}

// Lanes implements Routes: those with open sessions first.
func (m *MTA) Lanes(context.Context) ([]Lane, error) {
	s := m.lanes
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Lane, 0, min(len(s.byKey), maxLanes))
	for _, l := range s.byKey {
		list = append(list, Lane{Servers: l.servers, Limit: int(l.limit), Busy: l.used, Waiting: len(l.line), Sessions: l.sessions})
	}
	slices.SortFunc(list, func(a, b Lane) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Servers, b.Servers))
	})
	return list[:min(len(list), maxLanes)], nil
}

// shortServers bounds a list of servers: a domain may have a hundred MXs of 250
// bytes each, and there are many domains.
func shortServers(list string) string {
	if len(list) <= maxServers {
		return list
	}
	return list[:strings.LastIndexByte(list[:maxServers], ' ')+1] + "..."
}

// server names a host as lanes and holds do.
func (h *host) server() string { return strings.ToLower(net.JoinHostPort(h.name, h.port)) }

// paused returns what an administrator's hold on a host means for mail, or nil.
// Jobs bring along what is paused as of the moment that they were handed out.
func (m *MTA) paused(h *host) *failure {
	if holds := m.holds.Load(); holds != nil {
		return h.pausedBy(*holds)
	}
	return nil
}

func (h *host) pausedBy(holds []queue.Hold) *failure {
	for i := range holds {
		if p := &holds[i]; p.Over(h.server()) {
			return &failure{outcome: queue.Paused, text: p.String(), hold: p.ID}
		}
	}
	return nil
}

// told completes results with what the queue is to know of the way they went.
func (m *MTA) told(l *lane, d *destination, results []queue.Result) []queue.Result {
	n := m.lanes.window(l, d.key)
	for i := range results {
		results[i].Window, results[i].Servers, results[i].Source = n, l.servers, d.route.Source
	}
	return results
}
