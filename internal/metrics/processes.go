package metrics

import (
	"maps"
	"slices"
	"strings"

	"tabard/internal/privsep"
)

// procDeliver begins the names of the deliver processes.
const procDeliver = "deliver"

// layers are the names that a sandbox layer may have: a process tells of its own
// layers, and might say anything.
func layers() []string {
	return []string{
		"own user", "empty root directory", "no core dumps", "undumpable", "no new privileges",
		"landlock files", "landlock TCP", "landlock scope", "seccomp", "unveil", "pledge",
	}
}

// processes tells how the processes do. Those of one user each come and go, and
// are one to the metrics; so are those that a reload has replaced.
func (b *builder) processes(st *privsep.Status) {
	memory, retiring := map[string]float64{}, map[string]float64{}
	delivering := 0.0
	for i := range st.Processes {
		p := &st.Processes[i]
		name, old := strings.CutSuffix(p.Name, ")")
		name, _, _ = strings.Cut(name, " (old ")
		kind, _, ofUser := strings.Cut(name, " ")
		if p.Usage != nil {
			memory[kind] += float64(p.Usage.Memory)
		}
		switch {
		case ofUser && kind == procDeliver:
			delivering++
		case old:
			retiring[kind]++
		default:
			retiring[kind] += 0
			b.process(p)
		}
	}
	b.gauge("tabard_deliver_processes", "Processes that deliver for one user each.", delivering)
	for _, kind := range slices.Sorted(maps.Keys(memory)) {
		b.gauge("tabard_process_resident_memory_bytes", "Resident memory; of deliver, and of processes that a reload has replaced, all of them together.", memory[kind], "process", kind)
	}
	for _, kind := range []string{procSMTPD, procMTA, procLookup} {
		b.gauge("tabard_process_retiring", "Processes that a reload has replaced, and that finish their work.", retiring[kind], "process", kind)
	}
	if c := st.Config; c != nil {
		b.gauge("tabard_config_loaded_timestamp_seconds", "When the configuration in force was read.", float64(c.Loaded.Unix()))
		b.gauge("tabard_config_reload_failed", "Whether the last attempt to replace the configuration failed: 1 or 0.", truth(c.Fault != ""))
	}
}

// process tells of one in force.
func (b *builder) process(p *privsep.ProcessStatus) {
	up := p.State == privsep.StateRunning
	b.gauge("tabard_process_up", "Whether the process runs, and is ready: 1 or 0.", truth(up), "process", p.Name)
	b.counter("tabard_process_restarts_total", "How often the process was started again after it had ended.", float64(p.Restarts), "process", p.Name)
	if up {
		b.gauge("tabard_process_start_time_seconds", "When the process was started.", float64(p.Since.UnixMilli())/1000, "process", p.Name)
	}
	if u := p.Usage; u != nil {
		b.counter("tabard_process_cpu_seconds_total", "Processor time that the process has taken, in user and system mode.", u.CPU.Seconds(), "process", p.Name)
		b.gauge("tabard_process_threads", "Threads of the process.", float64(u.Threads), "process", p.Name)
	}
	for _, l := range p.Layers {
		if !l.Waived && slices.Contains(layers(), l.Name) {
			b.gauge("tabard_process_sandbox_layer", "Whether the layer of the sandbox holds for the process: 1 or 0. Layers that are not meant to hold are left out.",
				truth(l.Held), "process", p.Name, "layer", l.Name)
		}
	}
}
