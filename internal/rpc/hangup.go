package rpc

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hangupInterval is how often a connection that is not being read is asked
// whether its peer has gone.
const hangupInterval = time.Second

// watchHangup calls gone once the peer of conn has closed it, without reading
// from it. The caller calls stop, which does not wait. A conn without a file
// descriptor is not watched.
func watchHangup(conn net.Conn, gone func()) (stop func()) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	stopped := make(chan struct{})
	go func() {
		tick := time.NewTicker(hangupInterval)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-tick.C:
				if hungUp(raw) {
					gone()
					return
				}
			}
		}
	}()
	return func() { close(stopped) }
}

func hungUp(raw syscall.RawConn) bool {
	var up bool
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		up = err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return up || err != nil
}
