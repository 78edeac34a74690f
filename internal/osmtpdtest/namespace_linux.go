package osmtpdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tabard/internal/unpacked"
)

// pkgDir is where the unpacked package is seen within the root directory.
const pkgDir = "/package"

// namespace is a mount namespace with a root directory, held by one thread of
// this process. Programs are started from that thread: they inherit it.
type namespace struct {
	root string
	do   chan func()
	left chan struct{} // closed when the thread is about to end
}

// newNamespace makes a namespace in which root has the system's programs and
// libraries and the package pkg.
func newNamespace(root, pkg string) (*namespace, error) {
	n := &namespace{root: root, do: make(chan func()), left: make(chan struct{})}
	ready := make(chan error)
	go n.hold(func() error { return enter(root, pkg) }, ready, func() {})
	if err := <-ready; err != nil {
		<-n.left
		return nil, err
	}
	return n, nil
}

// hold has a thread of its own for the namespace until close; it calls settled
// when it has one.
func (n *namespace) hold(enter func() error, ready chan<- error, settled func()) {
	// Never unlocked: the thread ends with this goroutine, and nothing else ever
	// runs in the namespace. It lives until close, because a parent's death
	// (Pdeathsig) is the death of this thread.
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread never ends, and its mounts are what /proc/self shows.
		// While it waits here another one must take over.
		other := make(chan struct{})
		go n.hold(enter, ready, func() { close(other) })
		<-other
		runtime.UnlockOSThread()
		return
	}
	settled()
	defer close(n.left)
	err := enter()
	ready <- err
	if err != nil {
		return
	}
	for f := range n.do {
		f()
	}
}

// enter gives the calling thread its own mounts.
func enter(root, pkg string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("%w: unshare: %w", ErrNotAllowed, err)
	}
	// Before anything else: what is mounted here must not show outside, where
	// the root directory is removed in the end.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("%w: private mounts: %w", ErrNotAllowed, err)
	}
	for _, name := range []string{"usr/bin", "usr/lib", "usr/lib64"} {
		if err := bindDir("/"+name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		if err := sameAs("/"+name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"dev/null", "dev/urandom"} {
		if err := bindFile("/"+name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if err := bindDir(pkg, filepath.Join(root, pkgDir)); err != nil {
		return err
	}
	for _, name := range []string{"usr/libexec", "usr/sbin"} {
		if err := os.Symlink(filepath.Join(pkgDir, name), filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}

// sameAs makes at what from is: a link on a system with one /usr, a directory on
// others, or nothing.
func sameAs(from, at string) error {
	if to, err := os.Readlink(from); err == nil {
		return os.Symlink(to, at)
	}
	return bindDir(from, at)
}

func bindDir(from, at string) error {
	if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return bind(from, at, unix.MS_RDONLY)
}

func bindFile(from, at string) error {
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(at, nil, 0o644); err != nil {
		return err
	}
	return bind(from, at, 0)
}

func bind(from, at string, flags uintptr) error {
	if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("%w: bind %s: %w", ErrNotAllowed, from, err)
	}
	if flags == 0 {
		return nil
	}
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("%w: bind %s read-only: %w", ErrNotAllowed, from, err)
	}
	return nil
}

// start starts a command of root and a group within the namespace, in a process
// group of its own; it ends when this process does.
func (n *namespace) start(cmd *exec.Cmd, group uint32) error {
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: n.root, Credential: &syscall.Credential{Gid: group}, Setpgid: true, Pdeathsig: syscall.SIGTERM,
	}
	started := make(chan error)
	n.do <- func() { started <- cmd.Start() }
	return <-started
}

// close leaves the namespace; what is mounted there goes with its last process.
func (n *namespace) close() error {
	close(n.do)
	<-n.left
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), n.root+"/") {
		return fmt.Errorf("mounts below %s are seen outside of their namespace", n.root)
	}
	return nil
}

// command prepares a program of the package, for start.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(pkgDir, name), args...)
	var dirs []string
	for _, dir := range unpacked.Libraries(s.pkg) {
		dirs = append(dirs, filepath.Join(pkgDir, dir))
	}
	cmd.Env = []string{"LD_PRELOAD=" + shimFile, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH=" + strings.Join(dirs, ":")}
	return cmd
}
