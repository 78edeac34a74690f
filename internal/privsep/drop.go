package privsep

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tabard/internal/sandbox"
)

// ErrUnconfined is the error of a process that would lack a layer although the
// configuration says `sandbox require`.
var ErrUnconfined = errors.New("sandbox require")

// ExitUnconfined is the exit status of a process that ends with ErrUnconfined:
// EX_CONFIG of sysexits.h.
const ExitUnconfined = 78

// Credential is a user and group id to become.
type Credential struct {
	UID, GID int
	Groups   []int // supplementary
}

// LookupUser finds the ids of a system user.
func LookupUser(name string) (*Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	return &Credential{UID: uid, GID: gid}, nil
}

// DropPrivileges gives up for good what the process does not need, by its Spec:
// it enters its root directory and becomes its user (as root only), keeps its
// memory to itself, gives up gaining privileges by execution, and everything
// that is not in p. What the system cannot do, or cannot without root, is
// reported as a layer that is not held, to the supervisor too; what it refuses to
// root is an error, as is a layer that Spec.Sandbox requires (ErrUnconfined). After
// an error the process must not go on.
func (c *Child) DropPrivileges(p sandbox.Profile) ([]Layer, error) {
	_ = time.Now().String() // reads the time zone while there are files
	var layers []Layer
	begin := func(h hello) ([]Layer, error) { return sandbox.Begin(h.Sandbox, inside(p, h)), nil }
	finish := func(h hello) ([]Layer, error) { return sandbox.Finish(h.Sandbox, p), nil }
	for _, step := range []func(hello) ([]Layer, error){goToRoot, begin, dropRoot, dropDumps, finish, dropGains} {
		l, err := step(c.hello)
		if err != nil {
			return nil, fmt.Errorf("drop privileges: %w", err)
		}
		layers = append(layers, l...)
	}
	if c.hello.Sandbox == sandbox.Require {
		if err := required(layers); err != nil {
			return nil, err
		}
	}
	return layers, c.ReportLayers(layers...)
}

// required names the layers that the system lacks. That the server was not
// started as root is how it was started, and no fault of the system.
func required(layers []Layer) error {
	var errs []error
	for _, l := range layers {
		if !l.Held && !l.Waived && l.Name != layerUser && l.Name != layerRoot {
			errs = append(errs, fmt.Errorf("%w: %s: %s", ErrUnconfined, l.Name, l.Reason))
		}
	}
	return errors.Join(errs...)
}

// Names of the layers that need root.
const (
	layerUser = "own user"
	layerRoot = "empty root directory"
)

var (
	errNotRoot = errors.New("not started as root")
	errNoUser  = errors.New("no user is configured for it")
)

// dropRoot enters the root directory and becomes the user.
func dropRoot(h hello) ([]Layer, error) {
	var why error
	switch {
	case os.Geteuid() != 0:
		why = errNotRoot
	case h.Credential == nil:
		why = errNoUser
	}
	layers := []Layer{sandbox.NewLayer(layerUser, why)}
	if h.Chroot != "" {
		layers = append(layers, sandbox.NewLayer(layerRoot, why))
	}
	if why != nil {
		return layers, nil
	}
	if h.Chroot != "" {
		if err := syscall.Chroot("."); err != nil {
			return nil, fmt.Errorf("chroot %s: %w", h.Chroot, err)
		}
	}
	return layers, become(*h.Credential)
}

// inside returns p with paths as they are before the change of root directory.
func inside(p sandbox.Profile, h hello) sandbox.Profile {
	if os.Geteuid() != 0 || h.Credential == nil || h.Chroot == "" || h.Chroot == EmptyRoot {
		return p
	}
	p.Writes = slices.Clone(p.Writes)
	for i, dir := range p.Writes {
		p.Writes[i] = filepath.Join(h.Chroot, dir)
	}
	return p
}

// goToRoot makes what is to be the root directory the current one, while files
// can be seen.
func goToRoot(h hello) ([]Layer, error) {
	if h.Chroot == "" || h.Credential == nil || os.Geteuid() != 0 {
		return nil, nil
	}
	return nil, enter(h.Chroot)
}

func enter(dir string) error {
	remove := dir == EmptyRoot
	if remove {
		var err error
		if dir, err = os.MkdirTemp("", "tabard-root-"); err != nil {
			return err
		}
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if remove {
		return os.Remove(dir)
	}
	return nil
}

// become changes the ids of every thread, and makes sure that root is gone.
func become(cr Credential) error {
	if cr.UID <= 0 || cr.GID <= 0 {
		return fmt.Errorf("refusing to become user %d, group %d", cr.UID, cr.GID)
	}
	if err := syscall.Setgroups(append([]int{cr.GID}, cr.Groups...)); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(cr.GID); err != nil {
		return fmt.Errorf("setgid %d: %w", cr.GID, err)
	}
	if err := syscall.Setuid(cr.UID); err != nil {
		return fmt.Errorf("setuid %d: %w", cr.UID, err)
	}
	if os.Getuid() != cr.UID || os.Geteuid() != cr.UID || os.Getgid() != cr.GID || os.Getegid() != cr.GID || syscall.Setuid(0) == nil {
		return fmt.Errorf("still not user %d, group %d", cr.UID, cr.GID)
	}
	return nil
}

// CloseMemory closes the memory of the calling process, the supervisor, to others
// of its user: it may hold passwords from the configuration.
func CloseMemory() Layer { return sandbox.NewLayer("undumpable", setUndumpable()) }

// dropDumps comes after the change of user, which resets it.
func dropDumps(h hello) ([]Layer, error) {
	if !h.Undumpable {
		return nil, nil
	}
	core := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	return []Layer{sandbox.NewLayer("no core dumps", core), sandbox.NewLayer("undumpable", setUndumpable())}, nil
}

// dropGains comes after the sandbox, which does the same for its own sake.
func dropGains(h hello) ([]Layer, error) {
	if h.SetuidPrograms {
		return nil, nil
	}
	return []Layer{sandbox.NewLayer("no new privileges", setNoNewPrivs())}, nil
}
