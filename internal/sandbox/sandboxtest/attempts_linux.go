// Package sandboxtest tries, from inside a process, what its sandbox has to
// forbid. Tests put it into the processes they start.
package sandboxtest

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attempt is one thing to try: What is a key of the table below, Arg a path, an
// address or a process id.
type Attempt struct{ What, Arg string }

// The attempts. All but those with a remark need an Arg.
const (
	Open     = "open"     // a file, for reading
	Create   = "create"   // a file, which is removed again
	Exec     = "exec"     // a program
	MemFile  = "memfile"  // make one that a program could be put into; no Arg
	TCP      = "tcp"      // connect to HOST:PORT, an IP address
	MPTCP    = "mptcp"    // the same with multipath TCP
	UDP      = "udp"      // send a datagram to it
	Unix     = "unix"     // connect to a UNIX socket
	Listen   = "listen"   // on HOST:PORT
	Netlink  = "netlink"  // open such a socket; no Arg
	IOURing  = "io_uring" // set one up; no Arg
	Ptrace   = "ptrace"   // a process
	ReadMem  = "readmem"  // /proc/PID/mem
	VMRead   = "vmread"   // process_vm_readv
	Signal   = "signal"   // whether a process could be sent one
	Dumpable = "dumpable" // open the own memory to others; no Arg
)

// Try makes an attempt and says how it failed: the name of the error, as EPERM,
// or nothing when it succeeded.
func Try(a Attempt) string {
	do := map[string]func(string) error{
		Open: open, Create: create, Exec: execute, MemFile: memFile,
		TCP:   func(arg string) error { return connectIP(arg, unix.SOCK_STREAM, 0) },
		MPTCP: func(arg string) error { return connectIP(arg, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) },
		UDP:   func(arg string) error { return connectIP(arg, unix.SOCK_DGRAM, 0) },
		Unix:  connectUnix, Listen: listen, Netlink: netlink, IOURing: ioURing, Ptrace: ptrace, ReadMem: readMem, VMRead: vmRead,
		Signal:   withPID(func(pid int) error { return unix.Kill(pid, 0) }),
		Dumpable: func(string) error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
	}[a.What]
	if do == nil {
		return "no such attempt: " + a.What
	}
	return name(do(a.Arg))
}

// name returns the symbolic name of a system's error.
func name(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func open(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func create(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	unix.Close(fd)
	return unix.Unlink(path)
}

func execute(path string) error {
	pid, err := syscall.ForkExec(path, []string{path}, nil)
	if err != nil {
		return err
	}
	_, err = syscall.Wait4(pid, nil, 0, nil)
	return err
}

func memFile(string) error {
	fd, err := unix.MemfdCreate("probe", 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// socket opens one with the flags that Go sets, which filters expect.
func socket(family, kind, protocol int) (int, error) {
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
}

// address is of IPv4.
func address(arg string) (*unix.SockaddrInet4, error) {
	ap, err := net.ResolveTCPAddr("tcp4", arg)
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrInet4{Port: ap.Port, Addr: [4]byte(ap.IP.To4())}, nil
}

func connectIP(arg string, kind, protocol int) error {
	sa, err := address(arg)
	if err != nil {
		return err
	}
	fd, err := socket(unix.AF_INET, kind, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	if kind == unix.SOCK_DGRAM {
		_, err = unix.Write(fd, []byte{0})
	}
	return err
}

func connectUnix(path string) error {
	fd, err := socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
}

func listen(arg string) error {
	sa, err := address(arg)
	if err != nil {
		return err
	}
	fd, err := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	return unix.Listen(fd, 1)
}

func netlink(string) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func ioURing(string) error {
	var params [120]byte // struct io_uring_params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

func withPID(f func(pid int) error) func(string) error {
	return func(arg string) error {
		pid, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		return f(pid)
	}
}

// ptrace attaches without stopping the process, and lets go of it by ending the
// thread.
func ptrace(arg string) error {
	return withPID(func(pid int) error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // for good
			_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
			if errno != 0 {
				done <- errno
				return
			}
			done <- nil
		}()
		return <-done
	})(arg)
}

func readMem(arg string) error {
	return withPID(func(pid int) error {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	})(arg)
}

// vmRead asks for a byte at an address where nothing is: that it is not there
// (EFAULT) is only said to who may read.
func vmRead(arg string) error {
	return withPID(func(pid int) error {
		var b [1]byte
		local := []unix.Iovec{{Base: &b[0], Len: 1}}
		_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 1, Len: 1}}, 0)
		if errors.Is(err, unix.EFAULT) {
			return nil
		}
		return err
	})(arg)
}
