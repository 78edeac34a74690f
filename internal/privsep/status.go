package privsep

import (
	"os"
	"strings"
	"time"
	"unicode"

	"tabard/internal/sandbox"
)

// State is what a process is doing.
type State string

// The states of a process.
const (
	StateWaiting  State = "waiting"  // for its first start
	StateStarting State = "starting" // not ready yet
	StateRunning  State = "running"
	StateBackoff  State = "backoff"  // ended, and to be started again
	StateRetiring State = "retiring" // replaced, and finishing its work
	StateStopping State = "stopping"
	StateStopped  State = "stopped"
)

// Status is the state of the supervisor and its processes.
type Status struct {
	PID       int             `json:"pid"`
	Stopping  bool            `json:"stopping"`
	Processes []ProcessStatus `json:"processes"`
	// Config is for the program to fill in.
	Config *ConfigStatus `json:"config,omitempty"`
}

// ConfigStatus tells of the configuration in force.
type ConfigStatus struct {
	Source string    `json:"source"` // path or URL
	Loaded time.Time `json:"loaded"`
	Hash   string    `json:"hash"`            // of its text, shortened
	Fault  string    `json:"fault,omitempty"` // why the last attempt to replace it failed
}

// ProcessStatus is the state of one process.
type ProcessStatus struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid,omitempty"` // 0 while it does not run
	State    State     `json:"state"`
	Since    time.Time `json:"since"` // start of its present life, or of its present state without one
	Restarts int       `json:"restarts"`
	LastExit string    `json:"last_exit,omitempty"` // why its life before ended
	Layers   []Layer   `json:"layers,omitempty"`
	Usage    *Usage    `json:"usage,omitempty"` // for the program to fill in, with UsageOf
}

// Usage is what a process takes of the machine.
type Usage struct {
	Memory  int64         `json:"memory"` // resident, bytes
	CPU     time.Duration `json:"cpu"`    // since it began, nanoseconds
	Threads int           `json:"threads"`
}

// Layer is one measure that confines a process.
type Layer = sandbox.Layer

// Status returns the present state, in the order in which processes stop.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{PID: os.Getpid(), Stopping: s.stopping, Processes: make([]ProcessStatus, 0, len(s.procs))}
	for _, p := range s.procs {
		ps := ProcessStatus{Name: p.title(), State: p.state, Since: p.since, Restarts: p.restarts, LastExit: p.lastExit}
		if p.inst != nil {
			ps.PID, ps.Since, ps.Layers = p.inst.cmd.Process.Pid, p.inst.started, p.inst.layers
		}
		st.Processes = append(st.Processes, ps)
	}
	return st
}

const (
	maxLayers    = 16
	maxLayerText = 200
)

// boundLayers keeps what a child reports about itself small and printable.
func boundLayers(layers []Layer) []Layer {
	layers = layers[:min(len(layers), maxLayers)]
	for i, l := range layers {
		layers[i].Name = truncate(oneLine(l.Name), maxLayerText)
		layers[i].Reason = truncate(oneLine(l.Reason), maxLayerText)
	}
	return layers
}

// oneLine makes text of a child fit for a log line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, truncate(s, maxWords))
	return strings.TrimSpace(s)
}

func truncate(s string, max int) string { return s[:min(len(s), max)] }
