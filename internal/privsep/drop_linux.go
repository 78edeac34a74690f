package privsep

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// setNoNewPrivs sets PR_SET_NO_NEW_PRIVS for every thread. That needs a build
// without cgo, which is how Tabard is built, or a sandbox, which has done it by
// other means.
func setNoNewPrivs() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); errno != 0 && (err != nil || set != 1) {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}

// setUndumpable closes the memory of the process to ptrace and /proc/PID/mem of
// the same user, and disables core dumps.
func setUndumpable() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}

// nameProcess sets the name that ps shows without arguments; the program was
// executed by a path that says nothing.
func nameProcess(name string) {
	// A nicety: without /proc it stays as it is.
	_ = os.WriteFile("/proc/self/comm", []byte(truncate(name, 15)), 0)
}

// keepFromChildren closes the descriptors from first on at the next exec.
func keepFromChildren(first int) error {
	if unix.CloseRange(uint(first), ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	return markEach(first) // before Linux 5.11
}
