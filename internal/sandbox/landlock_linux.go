package sandbox

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// The versions of landlock's interface that brought what is used here.
const (
	abiFiles    = 1 // Linux 5.13
	abiRefer    = 2 // 5.19
	abiTruncate = 3 // 6.2
	abiTCP      = 4 // 6.7
	abiDevices  = 5 // 6.10
	abiScope    = 6 // 6.12
)

// Rights on files. Which of them exist depends on the kernel.
const (
	fileReads  = ll.AccessFSReadFile | ll.AccessFSReadDir
	fileWrites = ll.AccessFSWriteFile | ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeSym
	fileNever  = ll.AccessFSExecute | ll.AccessFSMakeChar | ll.AccessFSMakeBlock | ll.AccessFSMakeSock | ll.AccessFSMakeFifo
)

// Names of the layers.
const (
	layerFiles = "landlock files"
	layerTCP   = "landlock TCP"
	layerScope = "landlock scope"
)

// rules are what landlock is told for a profile.
type rules struct {
	config landlock.Config
	list   []landlock.Rule
}

// landlockABI returns the version of the kernel's landlock, 0 for none.
func landlockABI() int {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return abi
}

func needs(abi, want int) error {
	switch {
	case abi >= want:
		return nil
	case abi == 0:
		return errors.New("the kernel has no landlock, or it is not switched on")
	}
	return fmt.Errorf("the kernel's landlock is version %d, this needs %d", abi, want)
}

// restrict applies landlock and returns its layers, each tried out.
func restrict(p Profile) []Layer {
	abi := landlockABI()
	r := rules{}
	r.files(p, abi)
	r.tcp(p, abi)
	r.scope(p, abi)
	attempts := newAttempts(r.config)
	defer attempts.close()
	err := r.config.Restrict(r.list...)
	return []Layer{
		r.layer(layerFiles, filesWaived(p), errors.Join(needs(abi, abiFiles), err), func() error { return attempts.file(p) }),
		r.layer(layerTCP, tcpWaived(p), errors.Join(needs(abi, abiTCP), err), func() error { return attempts.tcp(p) }),
		r.layer(layerScope, scopeWaived(p), errors.Join(needs(abi, abiScope), err), attempts.scope),
	}
}

// layer reports on one part: waived with a reason, in the way of which err was,
// or as try finds it.
func (r *rules) layer(name, reason string, err error, try func() error) Layer {
	if reason != "" {
		return waived(name, reason)
	}
	if err == nil {
		err = try()
	}
	return NewLayer(name, err)
}

func filesWaived(p Profile) string {
	if p.AllFiles {
		return "its user's rights decide"
	}
	return p.Programs
}

func tcpWaived(p Profile) string { return p.Programs }

// scopeWaived is about signals and abstract sockets: who may connect to UNIX
// sockets may to those.
func scopeWaived(p Profile) string {
	if p.Connects == Anywhere {
		return "it connects to UNIX sockets"
	}
	return p.Programs
}

// files restricts files. Who may read may not execute.
func (r *rules) files(p Profile, abi int) {
	if filesWaived(p) != "" || needs(abi, abiFiles) != nil {
		return
	}
	writes := landlock.AccessFSSet(fileReads | fileWrites)
	all := writes | fileNever
	if abi >= abiRefer {
		writes |= ll.AccessFSRefer
		all |= ll.AccessFSRefer
	}
	if abi >= abiTruncate {
		writes |= ll.AccessFSTruncate
		all |= ll.AccessFSTruncate
	}
	if abi >= abiDevices {
		all |= ll.AccessFSIoctlDev
	}
	r.config.HandledAccessFS = all
	if p.Reads {
		r.list = append(r.list, landlock.PathAccess(fileReads, "/"))
	}
	for _, dir := range p.Writes {
		r.list = append(r.list, landlock.PathAccess(writes, existing(dir)))
	}
}

// existing returns dir without symbolic links, or what exists of it.
func existing(dir string) string {
	for {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return real
		}
		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}
		dir = up
	}
}

// tcp restricts TCP. No process binds a port of its choice: listening sockets
// are inherited, and others get any free port. There is no rule for "every port
// but these", only one for each port, which costs some 40 ms and 4 MiB of kernel
// memory for each thread. So connecting is restricted only where there is a port
// to close.
func (r *rules) tcp(p Profile, abi int) {
	if tcpWaived(p) != "" || needs(abi, abiTCP) != nil {
		return
	}
	r.config.HandledAccessNet = ll.AccessNetBindTCP
	if p.Connects != Nowhere {
		r.list = append(r.list, landlock.BindTCP(0))
	}
	if p.Connects != Nowhere && len(p.ClosedPorts) == 0 {
		return
	}
	r.config.HandledAccessNet |= ll.AccessNetConnectTCP
	if p.Connects == Nowhere {
		return
	}
	for port := 1; port <= math.MaxUint16; port++ {
		if !slices.Contains(p.ClosedPorts, uint16(port)) {
			r.list = append(r.list, landlock.ConnectTCP(uint16(port)))
		}
	}
}

func (r *rules) scope(p Profile, abi int) {
	if scopeWaived(p) == "" && needs(abi, abiScope) == nil {
		r.config.Scoped = ll.ScopeAbstractUnixSocket | ll.ScopeSignal
	}
}

// attempts are what must fail once landlock is in force.
type attempts struct {
	abstract int           // an abstract socket that listens; -1: there is none
	name     unix.Sockaddr // its address
}

// newAttempts makes what has to exist before.
func newAttempts(c landlock.Config) *attempts {
	a := &attempts{abstract: -1}
	if c.Scoped == 0 {
		return a
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return a
	}
	a.abstract = fd
	// With no name the kernel gives it an abstract one.
	if unix.Bind(fd, &unix.SockaddrUnix{}) == nil && unix.Listen(fd, 1) == nil {
		a.name, _ = unix.Getsockname(fd)
	}
	return a
}

func (a *attempts) close() {
	if a.abstract >= 0 {
		unix.Close(a.abstract)
	}
}

// wants checks that an attempt failed as landlock makes it fail.
func wants(err error, want unix.Errno, what string) error {
	switch {
	case errors.Is(err, want):
		return nil
	case err == nil:
		return fmt.Errorf("it is said to be in force, but %s works", what)
	}
	return fmt.Errorf("it is said to be in force, but %s fails otherwise: %w", what, err)
}

// file opens something that everybody may open: the root directory, or, for who
// may read, the null device for writing.
func (a *attempts) file(p Profile) error {
	path, flags := "/", unix.O_RDONLY|unix.O_DIRECTORY
	if p.Reads {
		path, flags = os.DevNull, unix.O_WRONLY
	}
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	if errors.Is(err, unix.ENOENT) && p.Reads {
		return fmt.Errorf("cannot be tried: there is no %s", path)
	}
	return wants(err, unix.EACCES, "opening "+path)
}

// probePort is one that a process without privileges may bind.
const probePort = 50025

// tcp binds a port and connects to a closed one.
func (a *attempts) tcp(p Profile) error {
	try := func(call func(fd int, sa unix.Sockaddr) error, port uint16, what string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		sa := &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}
		return wants(call(fd, sa), unix.EACCES, fmt.Sprintf("%s TCP port %d", what, port))
	}
	err := try(unix.Bind, probePort, "binding")
	switch {
	case p.Connects == Nowhere:
		err = errors.Join(err, try(unix.Connect, probePort, "connecting to"))
	case len(p.ClosedPorts) > 0:
		err = errors.Join(err, try(unix.Connect, p.ClosedPorts[0], "connecting to"))
	}
	return err
}

// scope connects to an abstract socket that was there before.
func (a *attempts) scope() error {
	if a.name == nil {
		return errors.New("cannot be tried: there is no abstract socket")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return wants(unix.Connect(fd, a.name), unix.EPERM, "connecting to an abstract socket")
}
