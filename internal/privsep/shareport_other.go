//go:build !linux

package privsep

import "syscall"

// setSharePort does nothing: where this is not Linux, a socket for one address
// and one for all of them do not get into each other's way, or cannot be helped.
func setSharePort(syscall.RawConn, bool) error { return nil }
