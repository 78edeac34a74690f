package privsep

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// maxInherited bounds the search for descriptors where the system cannot mark
// all of them at once.
const maxInherited = 16 << 10

// markEach sets FD_CLOEXEC on the open descriptors from first on, one by one.
func markEach(first int) error {
	for fd := first; fd < maxInherited; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // not open, or marked already
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags|unix.FD_CLOEXEC); err != nil {
			return fmt.Errorf("descriptor %d: close on exec: %w", fd, err)
		}
	}
	return nil
}
