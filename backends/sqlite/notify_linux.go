package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// notifier tells of writes to files, and of names that come and go in directories. It
// uses inotify itself: fsnotify asks for all that is written to any file of a directory,
// and a queue beside the tables is written to all the time.
type notifier struct {
	events  chan struct{} // holds one when something happened; nil: there are no events
	fd      int
	f       *os.File // the same
	watches map[int]bool
	named   atomic.Bool
}

// What is asked for: of directories, that a name now means something else.
const (
	dirEvents  = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	fileEvents = unix.IN_MODIFY | unix.IN_ATTRIB
)

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	n := &notifier{events: make(chan struct{}, 1), fd: fd, f: os.NewFile(uintptr(fd), "inotify"), watches: make(map[int]bool)}
	go n.read()
	return n, nil
}

// read tells of events until Close.
func (n *notifier) read() {
	buf := make([]byte, 4096)
	for {
		size, err := n.f.Read(buf)
		if err != nil {
			return
		}
		if named(buf[:size]) {
			n.named.Store(true)
		}
		select {
		case n.events <- struct{}{}:
		default:
		}
	}
}

// named reports whether any event is more than a write to a file.
func named(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		if binary.NativeEndian.Uint32(events[4:])&^fileEvents != 0 {
			return true
		}
		name := binary.NativeEndian.Uint32(events[12:])
		events = events[min(len(events), unix.SizeofInotifyEvent+int(name)):]
	}
	return false
}

// renamed reports whether names may mean other files than when it was asked before.
func (n *notifier) renamed() bool { return n.named.Swap(false) }

// watch watches these directories and files instead of those before. It reports whether
// everything is seen that happens to them; what is not there needs no watch.
func (n *notifier) watch(dirs, files []string) bool {
	all, watches := true, make(map[int]bool)
	add := func(path string, mask uint32) {
		wd, err := unix.InotifyAddWatch(n.fd, path, mask)
		if err == nil {
			watches[wd] = true
		} else if !errors.Is(err, unix.ENOENT) {
			all = false
		}
	}
	for _, path := range dirs {
		add(path, dirEvents|unix.IN_ONLYDIR)
	}
	for _, path := range files {
		add(path, fileEvents)
	}
	for wd := range n.watches {
		if !watches[wd] {
			_, _ = unix.InotifyRmWatch(n.fd, uint32(wd)) // already gone is as good
		}
	}
	n.watches = watches
	return all
}

// local reports whether nobody but this machine writes to a directory, so that events
// tell of everything. Of file systems that are not known it is not assumed.
func local(dir string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return false
	}
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// Close ends the events.
func (n *notifier) Close() error { return n.f.Close() }
