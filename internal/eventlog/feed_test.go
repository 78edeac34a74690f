package eventlog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"tabard/internal/count"
	"tabard/internal/count/counttest"
	"tabard/internal/rpc"
)

// memory is a store that can be down.
type memory struct {
	mu      sync.Mutex
	fault   error
	hang    bool
	batches []*Batch
	tries   int
	changed *sync.Cond
}

func newMemory() *memory {
	m := &memory{}
	m.changed = sync.NewCond(&m.mu)
	return m
}

func (m *memory) Write(ctx context.Context, b *Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tries++
	defer m.changed.Broadcast()
	if m.hang {
		m.changed.Broadcast()
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return ctx.Err()
	}
	if m.fault == nil {
		m.batches = append(m.batches, b)
	}
	return m.fault
}

// await waits until so many attempts to write were made, and losses were written.
func (m *memory) await(tries, losses int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	count := func() (n int) {
		for _, b := range m.batches {
			n += len(b.Losses)
		}
		return n
	}
	for m.tries < tries || count() < losses {
		m.changed.Wait()
	}
}

func (m *memory) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = err
}

// all returns the events of a kind that were written.
func (m *memory) all(k Kind) []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Event
	for _, b := range m.batches {
		all = append(all, b.Of(k)...)
	}
	return all
}

// feed connects a feed of a process with a hub.
func feed(t *testing.T, s Store, o Options) (*Feed, *Hub) {
	t.Helper()
	hub := NewHub("log", s)
	near, far := net.Pipe()
	srv := rpc.NewServer()
	if err := hub.Register(srv, o.Process); err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(t.Context(), far) }()
	if o.Gather == 0 {
		o.Gather = time.Millisecond
	}
	o.Retry, o.Node = time.Millisecond, "mx.example"
	f := NewFeed(rpc.NewClient(near), o)
	t.Cleanup(f.Close)
	return f, hub
}

func TestEventsArrive(t *testing.T) {
	t.Parallel()
	m := newMemory()
	f, hub := feed(t, m, Options{Process: "queue"})
	for n := range 2500 {
		f.Record(&Envelope{Party: Party{Address: fmt.Sprintf("U%d@Example.ORG", n), Message: "two\r\nlines"}})
	}
	f.Close()
	got := m.all(KindEnvelope)
	if len(got) != 2500 {
		t.Fatalf("%d events", len(got))
	}
	keys := map[int64]bool{}
	for n, e := range got {
		e := e.(*Envelope)
		keys[e.Key] = true
		if e.Address != fmt.Sprintf("U%d@Example.ORG", n) || e.Domain != "example.org" || e.Message != "two lines" ||
			e.Node != "mx.example" || e.Process != "queue" || e.At.IsZero() {
			t.Fatalf("%+v", e)
		}
	}
	if len(keys) != 2500 {
		t.Errorf("%d keys", len(keys))
	}
	if s := f.Stats(); s != (Stats{Written: 2500}) {
		t.Errorf("%+v", s)
	}
	if st := hub.Status(); st.Table != "log" || st.Fault != "" || len(st.Processes) != 1 || st.Processes[0] != (ProcessStatus{"queue", 2500, 0, 0}) {
		t.Errorf("%+v", st)
	}
}

// While the database is down events wait, so many; the rest is counted, and told of
// when it is back. A process is never kept waiting.
func TestLossesAreTold(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.set(errors.New("the disk\nis full"))
	f, hub := feed(t, m, Options{Process: "smtpd", MaxEvents: 10})
	for n := range 25 {
		f.Record(&Message{ID: fmt.Sprint(n)})
	}
	m.await(2, 0) // it is tried again
	if s := f.Stats(); s != (Stats{Waiting: 10, Lost: 15}) {
		t.Errorf("%+v", s)
	}
	if st := hub.Status(); st.Fault != "the disk is full" || st.Since == nil || st.Processes[0].Lost != 15 {
		t.Errorf("%+v", st)
	}
	var set count.Set
	c := NewCounts(&set, "smtpd")
	c.Take(f)
	if got := counttest.Of("tabard_eventlog_events_total", set.Descs(), set.Values()); got["smtpd lost"] != 15 {
		t.Errorf("%v", got)
	}
	m.set(nil)
	m.await(0, 1)
	f.Close()
	if n := len(m.all(KindMessage)); n != 10 {
		t.Errorf("%d messages", n)
	}
	l := m.all(KindLoss)
	if len(l) != 1 {
		t.Fatalf("%d markers", len(l))
	}
	if e := l[0].(*Loss); e.Count != 15 || e.Until.Before(e.Since) || e.Since.IsZero() || e.Reason == "" || e.Process != "smtpd" {
		t.Errorf("%+v", e)
	}
}

// Bytes bound what waits, too.
func TestBytesAreBounded(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.set(errors.New("down"))
	f, _ := feed(t, m, Options{Process: "smtpd", MaxBytes: 10_000})
	for range 100 {
		f.Record(&Message{Sender: strings.Repeat("x", 300)})
	}
	if s := f.Stats(); s.Waiting < 5 || s.Waiting > 30 || s.Waiting+s.Lost != 100 {
		t.Errorf("%+v", s)
	}
}

// A database that hangs keeps no process from its end for long.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.hang = true
	f, _ := feed(t, m, Options{Process: "smtpd", Flush: 10 * time.Millisecond})
	f.Record(&Message{ID: "1"})
	m.await(1, 0)
	f.Close()
	if s := f.Stats(); s != (Stats{Lost: 1}) {
		t.Errorf("%+v", s)
	}
	f.Record(&Message{ID: "2"}) // after the end: nobody waits for it
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	m := newMemory()
	f, _ := feed(t, m, Options{Process: "queue", Off: true})
	if On(f) || On(nil) {
		t.Error("on")
	}
	f.Record(&Message{ID: "1"})
	f.Switch(true)
	f.Record(&Message{ID: "2"})
	f.Close()
	if got := m.all(KindMessage); len(got) != 1 || got[0].(*Message).ID != "2" {
		t.Errorf("%+v", got)
	}
}

// Without an event log nothing is kept, and nothing is a loss.
func TestNoStore(t *testing.T) {
	t.Parallel()
	f, hub := feed(t, nil, Options{Process: "smtpd"})
	f.Record(&Message{ID: "1"})
	f.Close()
	if s := f.Stats(); s != (Stats{}) || hub.Status().Fault != "" {
		t.Errorf("%+v, %+v", s, hub.Status())
	}
}

// What comes from another process may be hostile.
func TestHostileBatches(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := Head{At: now}
	many := make([]Session, MaxBatch+1)
	for name, b := range map[string]*Batch{
		"the end of an envelope":  {Results: []Result{{Head: at, Result: Delivered}}},
		"a refusal of an other's": {Results: []Result{{Head: at, Result: Rejected, Party: Party{Envelope: "1.0"}}}},
		"an envelope":             {Envelopes: []Envelope{{Head: at}}},
		"an attempt":              {Attempts: []Attempt{{Head: at}}},
		"a session of mta's":      {Sessions: []Session{{Head: at, Direction: Out, Began: now}}},
		"the far future":          {Messages: []Message{{Head: Head{At: now.Add(48 * time.Hour)}}}},
		"no time":                 {Messages: []Message{{}}},
		"a negative size":         {Messages: []Message{{Head: at, Size: -1}}},
		"too many":                {Sessions: many},
	} {
		if err := b.check("smtpd", now); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := strings.Repeat("\x00\n\xff", 10_000)
	b := &Batch{Messages: []Message{{Head: Head{At: now, Node: long, Process: "queue"}, Sender: long}}}
	if err := b.check("smtpd", now); err != nil {
		t.Fatal(err)
	}
	e := b.Messages[0]
	if e.Process != "smtpd" || len(e.Sender) > maxWord || strings.ContainsAny(e.Sender+e.Node, "\x00\n") || !utf8.ValidString(e.Sender) {
		t.Errorf("%+v", e)
	}
}

// A batch that is refused is not sent again for ever, and what comes after it is.
func TestRefusedBatch(t *testing.T) {
	t.Parallel()
	m := newMemory()
	f, _ := feed(t, m, Options{Process: "smtpd"})
	f.Record(&Envelope{}) // not smtpd's to tell
	m.await(0, 1)
	f.Record(&Message{ID: "1"})
	f.Close()
	if len(m.all(KindMessage)) != 1 || m.all(KindLoss)[0].(*Loss).Count != 1 {
		t.Errorf("%+v, %+v", f.Stats(), m.batches)
	}
}

// Every column of every kind has a place of its own.
func TestFields(t *testing.T) {
	t.Parallel()
	for _, k := range Kinds() {
		e := New(k)
		if e == nil || e.Kind() != k {
			t.Fatalf("%s: %v", k, e)
		}
		names, places := map[string]bool{}, map[any]bool{}
		for _, f := range e.Fields() {
			if names[f.Name] || places[f.Value] {
				t.Errorf("%s.%s is there twice", k, f.Name)
			}
			names[f.Name], places[f.Value] = true, true
		}
		b := &Batch{}
		b.Add(e)
		if b.Len() != 1 || len(b.Of(k)) != 1 {
			t.Errorf("%s is not in its batch", k)
		}
	}
}

// Clean reaches every text and every time of every kind of event.
func TestClean(t *testing.T) {
	t.Parallel()
	for _, k := range Kinds() {
		e := New(k)
		for _, f := range e.Fields() {
			switch v := f.Value.(type) {
			case *string:
				*v = "a\r\nb@EXAMPLE.org" + strings.Repeat("x", 2000)
			case *time.Time:
				*v = time.Date(2026, 1, 2, 3, 4, 5, 6_789_012, time.FixedZone("", 3600))
			}
		}
		size := Clean(e)
		stored := 0
		for _, f := range e.Fields() {
			switch v := f.Value.(type) {
			case *string:
				limit := maxWord
				if f.Name == "text" {
					limit = maxText
				}
				if stored += len(*v); strings.ContainsAny(*v, "\r\n") || len(*v) > limit {
					t.Errorf("%s of a %s: %d bytes, %q", f.Name, k, len(*v), *v)
				}
			case *time.Time:
				if v.Location() != time.UTC || v.Nanosecond() != 6_000_000 {
					t.Errorf("%s of a %s: %s", f.Name, k, v)
				}
			}
		}
		if size < stored+10*len(e.Fields()) || size > stored+20*len(e.Fields())+100 {
			t.Errorf("a %s of %d bytes takes %d", k, stored, size)
		}
	}
}
