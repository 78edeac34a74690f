// Package eventlogtest keeps, in tests, what was told to the event log.
package eventlogtest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"tabard/internal/eventlog"
)

// Recorder keeps events. The zero value is ready.
type Recorder struct {
	mu     sync.Mutex
	events []eventlog.Event
}

var _ eventlog.Recorder = (*Recorder)(nil)

// On implements eventlog.Recorder.
func (*Recorder) On() bool { return true }

// Record implements eventlog.Recorder.
func (r *Recorder) Record(e eventlog.Event) {
	eventlog.Clean(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Lines returns the events of some kinds (of none: all), each on a line: its kind, and
// key=value of what is not empty, but for times, spans and the names in leave.
func (r *Recorder) Lines(leave string, kinds ...eventlog.Kind) string {
	left := map[string]bool{"key": true, "node": true, "process": true, "duration_ms": true, "delay_ms": true}
	for _, name := range strings.Fields(leave) {
		left[name] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.events {
		wanted := len(kinds) == 0
		for _, k := range kinds {
			wanted = wanted || k == e.Kind()
		}
		if wanted {
			b.WriteString(line(e, left) + "\n")
		}
	}
	return b.String()
}

func line(e eventlog.Event, left map[string]bool) string {
	words := []string{string(e.Kind())}
	for _, f := range e.Fields() {
		if left[f.Name] {
			continue
		}
		switch v := f.Value.(type) {
		case *string:
			if *v != "" {
				words = append(words, f.Name+"="+*v)
			}
		case *int64:
			if *v != 0 {
				words = append(words, fmt.Sprintf("%s=%d", f.Name, *v))
			}
		case *time.Time: // another one each time
		}
	}
	return strings.Join(words, " ")
}
