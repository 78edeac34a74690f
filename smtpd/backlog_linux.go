package smtpd

import (
	"net"
	"os"
	"syscall"
)

// waiting accepts a connection that the kernel has ready on l, without waiting
// for one. It returns nil when there is none.
func waiting(l net.Listener) net.Conn {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	fd := -1
	err = raw.Control(func(lfd uintptr) {
		for {
			n, _, err := syscall.Accept4(int(lfd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err == syscall.EINTR || err == syscall.ECONNABORTED {
				continue
			}
			if err == nil {
				fd = n
			}
			return
		}
	})
	if err != nil || fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "accepted")
	defer func() { _ = f.Close() }()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	return conn
}
