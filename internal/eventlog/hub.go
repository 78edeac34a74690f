package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"tabard/internal/address"
	"tabard/internal/count"
	"tabard/internal/rpc"
)

// Store writes events to a database.
type Store interface {
	// Write stores a batch, all of it or nothing. What is there already, by At and Key,
	// is left as it is.
	Write(ctx context.Context, b *Batch) error
}

const (
	nameEvents  = "Events"
	methodWrite = nameEvents + ".Write"
	nameStatus  = "EventStatus"
)

// delivery is a batch on its way, and how its process fares.
type delivery struct {
	Batch Batch
	Stats Stats
}

// Hub takes the events of the other processes, in lookup.
type Hub struct {
	store Store
	table string
	now   func() time.Time

	mu    sync.Mutex
	peers map[string]Stats
	fault string // why the last batch was not written
	since time.Time
}

// Status is how the event log does, in the words of lookup: of a process that has not
// been heard of since lookup began there is nothing.
type Status struct {
	Table     string          `json:"table"` // empty: there is no event log
	Fault     string          `json:"error,omitempty"`
	Since     *time.Time      `json:"since,omitempty"` // of Fault
	Processes []ProcessStatus `json:"processes,omitempty"`
}

// ProcessStatus is that of one process, as it told last.
type ProcessStatus struct {
	Process string `json:"process"`
	Written int64  `json:"written"`
	Lost    int64  `json:"lost"`
	Waiting int64  `json:"waiting"`
}

// NewHub returns a hub that writes to the store behind a table, or to none if it is nil.
func NewHub(table string, s Store) *Hub {
	return &Hub{store: s, table: table, now: time.Now, peers: map[string]Stats{}}
}

// Register takes the events of a process on its connection.
func (h *Hub) Register(s *rpc.Server, process string) error {
	return s.Register(nameEvents, &eventsEdge{h, process})
}

// RegisterStatus serves Status.
func (h *Hub) RegisterStatus(s *rpc.Server) error { return s.Register(nameStatus, &statusEdge{h}) }

// ReadStatus asks the hub at the other end of c.
func ReadStatus(ctx context.Context, c rpc.Caller) (Status, error) {
	return rpc.Invoke[rpc.None, Status](ctx, c, nameStatus+".Read", rpc.None{})
}

type eventsEdge struct {
	hub     *Hub
	process string
}

// Write serves Feed.
func (e *eventsEdge) Write(c *rpc.Call[delivery], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(ctx context.Context, d delivery) (rpc.None, error) {
		return rpc.None{}, e.hub.write(ctx, e.process, &d)
	})
}

func (h *Hub) write(ctx context.Context, process string, d *delivery) error {
	if h.store == nil {
		return fmt.Errorf("event log: %w", rpc.ErrNotFound)
	}
	err := d.Batch.check(process, h.now())
	if err == nil {
		if err = h.store.Write(ctx, &d.Batch); err != nil {
			// Whatever the database says is for the moment.
			err = errors.New(address.OneLine(err.Error(), maxText))
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Stats{Written: max(0, d.Stats.Written), Lost: max(0, d.Stats.Lost), Waiting: max(0, d.Stats.Waiting)}
	switch {
	case err == nil:
		n := int64(d.Batch.Len())
		s.Written += n
		s.Waiting = max(0, s.Waiting-n)
		h.fault = ""
	case h.fault == "":
		h.since = h.now()
		fallthrough
	default:
		h.fault = err.Error()
	}
	h.peers[process] = s
	return err
}

type statusEdge struct{ hub *Hub }

// Read serves ReadStatus.
func (e *statusEdge) Read(c *rpc.Call[rpc.None], r *rpc.Reply[Status]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) (Status, error) { return e.hub.Status(), nil })
}

// Status returns how the event log does.
func (h *Hub) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := Status{Table: h.table, Fault: h.fault}
	if h.fault != "" {
		since := h.since
		st.Since = &since
	}
	for _, name := range slices.Sorted(maps.Keys(h.peers)) {
		s := h.peers[name]
		st.Processes = append(st.Processes, ProcessStatus{name, s.Written, s.Lost, s.Waiting})
	}
	return st
}

// Counts are the metrics of a process' Feed.
type Counts struct {
	process         string
	events, waiting *count.Vec
}

// NewCounts adds to what a process counts how its events fare.
func NewCounts(s *count.Set, process string) *Counts {
	return &Counts{
		process: process,
		events: s.New(count.Desc{
			Name: "tabard_eventlog_events_total", Help: "Events for the event log that were written to its database, and that were lost.", Kind: count.Counter,
			Labels: []string{"process", "result"}, Series: count.Cross([]string{process}, []string{"written", "lost"}),
		}),
		waiting: s.New(count.Desc{
			Name: "tabard_eventlog_waiting_events", Help: "Events that wait to be written to the database of the event log.", Kind: count.Gauge,
			Labels: []string{"process"}, Series: [][]string{{process}},
		}),
	}
}

// Take takes over the numbers of a recorder, if it is a Feed.
func (c *Counts) Take(r Recorder) {
	f, ok := r.(*Feed)
	if !ok {
		return
	}
	s := f.Stats()
	c.events.Set(float64(s.Written), c.process, "written")
	c.events.Set(float64(s.Lost), c.process, "lost")
	c.waiting.Set(float64(s.Waiting), c.process)
}
