// Package control is the local control socket: how command line tools reach a
// running Tabard.
//
// The supervisor listens on a UNIX socket that only its own user can open, and
// does three small things there: it reports the state of its processes, reads
// its configuration again, and connects a tool with one of the processes. The tool then gets a socket of its own by
// SCM_RIGHTS and speaks typed rpc with that process; the supervisor sees
// nothing of it. A connection carries one request (package fdpass gives the
// format). Whatever else arrives there costs one closed connection.
package control

import (
	"errors"
	"time"

	"tabard/internal/privsep"
)

// EdgeName is the name of the edge that a process gets for a tool.
const EdgeName = "control"

const (
	maxRequest = 4 << 10
	maxReply   = 1 << 20
	maxConns   = 64
	// exchangeTimeout bounds one request with its answer, on both sides.
	exchangeTimeout = 5 * time.Second
	// reloadTimeout is for a reload, which starts processes.
	reloadTimeout = 5 * time.Minute
)

// op says what a request asks for.
type op uint8

const (
	opStatus  op = iota + 1
	opConnect    // to the process called Name; the answer has a file
	opReload     // read the configuration again
)

type request struct {
	Op   op
	Name string
}

type reply struct {
	Error  string
	Status privsep.Status
}

// ErrNotRunning means that nothing serves the control socket.
var ErrNotRunning = errors.New("tabard is not running")
