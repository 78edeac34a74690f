package main

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"tabard/backends"
	"tabard/internal/config"
	"tabard/internal/privsep"
	"tabard/internal/sandbox"
)

// What each process still has to be able to do once it has begun (DESIGN
// section 2). docs/processes.md says the same to people.

// smtpdProfile: it lives on its listeners, its clients and its edges.
func smtpdProfile() sandbox.Profile { return sandbox.Profile{Accepts: true} }

// mtaReach is what the configuration says about where mta connects to.
type mtaReach struct {
	Closed  []uint16 // ports of databases
	Sockets bool     // relays are UNIX sockets
}

func (r mtaReach) profile() sandbox.Profile {
	p := sandbox.Profile{Connects: sandbox.Internet, ClosedPorts: r.Closed}
	if r.Sockets {
		p.Connects = sandbox.Anywhere
	}
	return p
}

// newMTAReach closes the ports of the tables' servers to mta. Where a file that
// names one cannot be read there is none to close: lookup will say more about it.
func newMTAReach(cfg *config.Config, log *slog.Logger) mtaReach {
	needs, err := backends.NeedsOf(cfg.Tables)
	if err != nil {
		log.Warn("mta cannot be kept from the port of a table that is not understood", "error", err)
	}
	return mtaReach{Closed: needs.Ports, Sockets: slices.ContainsFunc(cfg.Tables, holdsSocket)}
}

// holdsSocket reports whether the configuration itself names a UNIX socket as a
// relay. What tables elsewhere hold cannot be known.
func holdsSocket(t config.Table) bool {
	socket := func(text string) bool { return strings.Contains(text, "lmtp:///") }
	return slices.ContainsFunc(t.List, socket) || slices.ContainsFunc(t.Map, func(kv config.KeyVal) bool { return socket(kv.Value) })
}

// queueProfile: the spool.
func queueProfile(c queueConfig) sandbox.Profile {
	return sandbox.Profile{Writes: []string{c.dir()}}
}

// tablesProfile is that of a process with tables. Which files they read their own
// configurations say: certificates, passwords, sockets.
func tablesProfile(tables []config.Table) sandbox.Profile {
	// A table that is not understood has no database to write beside, or none yet.
	needs, _ := backends.NeedsOf(tables)
	p := sandbox.Profile{Reads: true, Writes: append(backends.TempDirs(), needs.Dirs...), Connects: sandbox.Anywhere}
	if len(needs.Programs) > 0 {
		p.Programs = "tables are programs: " + strings.Join(needs.Programs, ", ")
	}
	return p
}

// deliverMeans is what deliveries of the configuration need.
type deliverMeans struct {
	Programs bool // mail delivery agents
	Connects bool // LMTP
}

func newDeliverMeans(cfg *config.Config) deliverMeans {
	with := func(m config.Method) bool {
		return slices.ContainsFunc(cfg.Actions, func(a config.Action) bool { return a.Method == m })
	}
	return deliverMeans{Programs: with(config.MethodMDA), Connects: with(config.MethodLMTP)}
}

// profile: files are for its user's rights to say. A mail delivery agent may be
// any program, also one that changes its user.
func (m deliverMeans) profile() sandbox.Profile {
	p := sandbox.Profile{AllFiles: true}
	if m.Connects {
		p.Connects = sandbox.Anywhere
	}
	if m.Programs {
		p.Open = "mail delivery agents are programs of any kind"
	}
	return p
}

// sandboxMode is that of the configuration.
func sandboxMode(cfg *config.Config) sandbox.Mode {
	return cmp.Or(sandbox.Mode(cfg.Sandbox), sandbox.BestEffort)
}

// warnUnconfined says once for each layer which processes lack it and why.
func warnUnconfined(log *slog.Logger, mode sandbox.Mode, processes []privsep.ProcessStatus) {
	if mode == sandbox.Off {
		log.Warn("the sandbox is off: a fault in a process gives away all that its user may do", "reason", "sandbox off")
	}
	missing := make(map[[2]string][]string)
	for _, p := range processes {
		for _, l := range p.Layers {
			if !l.Held && !l.Waived {
				missing[[2]string{l.Name, l.Reason}] = append(missing[[2]string{l.Name, l.Reason}], p.Name)
			}
		}
	}
	order := func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }
	for _, l := range slices.SortedFunc(maps.Keys(missing), order) {
		log.Warn("a layer of the sandbox is missing", "layer", l[0], "processes", strings.Join(missing[l], ", "), "reason", l[1])
	}
}

// confinedCode is the exit code of a server whose processes ended with err.
func confinedCode(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == privsep.ExitUnconfined {
		return withCode(exConfig, err)
	}
	return withCode(exUnavailable, err)
}
