package privsep

import (
	"fmt"
	"strings"

	"tabard/internal/rpc"
	"tabard/internal/sandbox"
)

const (
	// controlFD is the control socket in a child.
	controlFD = 3
	// maxInit bounds an encoded configuration, in bytes; maxDown and maxUp a
	// message from and to the supervisor.
	maxInit = 8 << 20
	maxDown = maxInit + 64<<10
	maxUp   = 64 << 10
	// maxWords bounds the last words of a child, in bytes.
	maxWords = 2 << 10
	// maxRequests is how many requests of one child are answered at once.
	maxRequests = 16
	// titlePrefix begins argv[0] of every child.
	titlePrefix = "tabard: "
)

// downKind says what the supervisor tells a child.
type downKind uint8

const (
	downHello    downKind = iota + 1 // Data: hello
	downListener                     // Name, and the socket
	downEdge                         // Name, Peer, Client, and the socket
	downAnswer                       // ID; Data or Error
	downStop
	downActivate
	downRetire
	downUpdate // ID, Data
)

type down struct {
	Kind   downKind
	Name   string
	Peer   string
	Client bool
	ID     uint64
	Data   []byte
	Error  string
}

// hello is the first message to a child.
type hello struct {
	Name           string
	Init           []byte
	Listeners      int // messages that follow
	Credential     *Credential
	Chroot         string
	Undumpable     bool
	SetuidPrograms bool
	Candidate      bool
	Sandbox        sandbox.Mode
}

// upKind says what a child tells the supervisor.
type upKind uint8

const (
	upReady   upKind = iota + 1
	upLayers         // Layers
	upFailed         // Text
	upRequest        // ID, Text (its kind), Data
	upRested
	upUpdated // ID
)

type up struct {
	Kind   upKind
	ID     uint64
	Text   string
	Data   []byte
	Layers []Layer
}

// Request is what a process asks of the supervisor.
type Request struct {
	From string // the name of the process
	Kind string
	data []byte
	code *rpc.Coding
}

// Decode decodes the payload into v, a pointer.
func (r Request) Decode(v any) error {
	if err := r.code.Unmarshal(r.data, v); err != nil {
		return fmt.Errorf("request %q: %w", r.Kind, err)
	}
	return nil
}

// ChildName returns the name of the process that the program is to be, given
// its arguments; false when it was not started as a child.
func ChildName(args []string) (string, bool) {
	if len(args) == 0 {
		return "", false
	}
	return strings.CutPrefix(args[0], titlePrefix)
}
