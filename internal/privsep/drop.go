package privsep

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

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
// memory to itself, and gives up gaining privileges by execution. What the
// system cannot do, or cannot without root, is reported as a layer that is not
// held, to the supervisor too; what it refuses to root is an error, and the
// process must not go on.
func (c *Child) DropPrivileges() ([]Layer, error) {
	_ = time.Now().String() // reads the time zone while there are files
	var layers []Layer
	for _, step := range []func(hello) ([]Layer, error){dropRoot, dropDumps, dropGains} {
		l, err := step(c.hello)
		if err != nil {
			return nil, fmt.Errorf("drop privileges: %w", err)
		}
		layers = append(layers, l...)
	}
	return layers, c.ReportLayers(layers...)
}

// layer is held if err is nil.
func layer(name string, err error) Layer {
	if err != nil {
		return Layer{Name: name, Reason: err.Error()}
	}
	return Layer{Name: name, Held: true}
}

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
	layers := []Layer{layer("own user", why)}
	if h.Chroot != "" {
		layers = append(layers, layer("empty root directory", why))
	}
	if why != nil {
		return layers, nil
	}
	if err := enterRoot(h.Chroot); err != nil {
		return nil, err
	}
	return layers, become(*h.Credential)
}

func enterRoot(dir string) error {
	if dir == "" {
		return nil
	}
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
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	if err := syscall.Chroot("."); err != nil {
		return fmt.Errorf("chroot %s: %w", dir, err)
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

// dropDumps comes after the change of user, which resets it.
func dropDumps(h hello) ([]Layer, error) {
	if !h.Undumpable {
		return nil, nil
	}
	core := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	return []Layer{layer("no core dumps", core), layer("undumpable", setUndumpable())}, nil
}

func dropGains(h hello) ([]Layer, error) {
	if h.SetuidPrograms {
		return nil, nil
	}
	return []Layer{layer("no new privileges", setNoNewPrivs())}, nil
}
