// Package sandbox takes from a process, for good, what it does not need.
//
// A Profile says what a process still has to do. Begin and Finish give up the
// rest with what the system has: landlock and seccomp on Linux, pledge and unveil on
// OpenBSD. What it reports is not what was asked for but what was found in
// force: after each step it tries something that must fail now.
package sandbox

// Mode says how seriously the layers are taken.
type Mode string

// The modes of the configuration. The zero Mode is that of programs that have
// no configuration: nothing is done, and nothing reported.
const (
	Require    Mode = "require"
	BestEffort Mode = "best-effort"
	Off        Mode = "off"
)

// Reach says where a process may open connections to. Sockets that it was given
// work in any case.
type Reach int

// The reaches, from nothing to everything.
const (
	Nowhere  Reach = iota
	Internet       // TCP and UDP
	Anywhere       // UNIX sockets too
)

// Profile says what a process needs. The zero Profile is that of a process that
// lives on the sockets it has been given.
type Profile struct {
	// Accepts lets it accept connections on sockets that it was given.
	Accepts bool
	// Reads lets it read every file that its user may read. Which these are may
	// depend on files that it has yet to read.
	Reads bool
	// Writes are the directories in which it creates, changes and deletes files,
	// with what is below them. One that does not exist yet counts as the nearest
	// directory above that does.
	Writes []string
	// AllFiles leaves it to the user's rights which files are read and written.
	AllFiles bool
	// Connects says what it opens connections to.
	Connects Reach
	// ClosedPorts are TCP ports that it must not connect to, although it may
	// connect to all others.
	ClosedPorts []uint16
	// Programs, when not empty, says why the process executes programs about
	// which nothing is known here. They inherit what holds for the process, so
	// that little can be taken from it.
	Programs string
	// Open, when not empty, says why nothing at all is taken from the process.
	Open string
}

// files reports whether the process opens any files.
func (p Profile) files() bool { return p.Reads || p.AllFiles || len(p.Writes) > 0 }

// Layer is one measure that confines a process.
type Layer struct {
	Name string `json:"name"`
	Held bool   `json:"held"`
	// Waived says that it is not held because it is not meant to be.
	Waived bool   `json:"waived,omitempty"`
	Reason string `json:"reason,omitempty"` // why it is not held
}

// NewLayer returns a layer that is held if err is nil.
func NewLayer(name string, err error) Layer {
	if err != nil {
		return Layer{Name: name, Reason: err.Error()}
	}
	return Layer{Name: name, Held: true}
}

func waived(name, reason string) Layer { return Layer{Name: name, Waived: true, Reason: reason} }

// Begin and Finish give up what p does not name, for all threads, and return what
// holds. A layer that could not be put in force is not held; they go on without
// it. Nothing of it can be undone, and what was opened before stays open.
//
// A process that changes its root directory or its user does so between the two:
// Begin needs to see the files, and after Finish such a change is forbidden. The
// paths in p are those before.
func Begin(mode Mode, p Profile) []Layer {
	if idle(mode, p) {
		return nil
	}
	return begin(p)
}

// Finish is the second half; see Begin.
func Finish(mode Mode, p Profile) []Layer {
	switch {
	case mode == "":
		return nil
	case mode == Off:
		return []Layer{waived("sandbox", "the configuration says `sandbox off`")}
	case p.Open != "":
		return []Layer{waived("sandbox", p.Open)}
	}
	return finish(p)
}

// idle reports whether there is nothing to do.
func idle(mode Mode, p Profile) bool { return mode == "" || mode == Off || p.Open != "" }
