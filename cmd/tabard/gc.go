package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// gcPercent lets the heap of a process grow further than Go's 100 % before it is
// collected. What lives in these processes is small and what they allocate dies
// at once: measured, it saves a fifth of the CPU per message. lookup keeps Go's
// value, because tables may be large.
func gcPercent(kind string) int {
	return map[string]int{procSMTPD: 400, procMTA: 400, procQueue: 200}[kind]
}

// gcSlack is how much garbage a process may gather by its gcPercent, in bytes. Where more
// lives than that allows for, as with hundreds of large messages on their way, multiples
// of it would be wasted.
const gcSlack = 32 << 20

// setGCPercent sets what gcPercent says, unless the administrator did.
func setGCPercent(kind string) {
	most := gcPercent(kind)
	if most == 0 || os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(most)
	(&pacer{most: most, now: most, set: func(percent int) { debug.SetGCPercent(percent) }}).watch()
}

// pacer lowers the percentage while much lives.
type pacer struct {
	most, now int
	set       func(percent int)
}

// watch adjusts the percentage after each collection.
func (p *pacer) watch() {
	mark := &struct{ _ *int }{} // dies with the next collection
	runtime.AddCleanup(mark, func(p *pacer) {
		p.adjust()
		p.watch()
	}, p)
}

func (p *pacer) adjust() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := pacedPercent(live[0].Value.Uint64(), p.most)
	// Setting it stops the process for a moment, and little is gained by a little.
	if d := percent - p.now; d > p.now/8 || -d > p.now/8 {
		p.now = percent
		p.set(percent)
	}
}

// pacedPercent is how far a heap may grow of which so many bytes live.
func pacedPercent(live uint64, most int) int {
	percent := uint64(most)
	if live > 0 {
		percent = min(percent, 100*gcSlack/live)
	}
	return int(max(percent, 100))
}
