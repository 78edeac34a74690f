package privsep

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// setSharePort lets sockets of the same user that have it on, too, listen on the
// port of this one.
func setSharePort(raw syscall.RawConn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	var set error
	err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, value) })
	if err := errors.Join(err, set); err != nil {
		return fmt.Errorf("share a port: %w", err)
	}
	return nil
}
