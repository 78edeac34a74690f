//go:build linux && (amd64 || arm64)

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// Answers of the filter. A call that is not allowed fails with EPERM and does
// not kill: a list that lacks something must cost an error, not the process.
// ENOSYS makes libraries fall back to an older call.
const (
	allow   = seccomp.ActionAllow
	refuse  = seccomp.ActionErrno // EPERM
	unknown = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
)

// filter loads the filter of p into all threads, and tries it.
func filter(p Profile) error {
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	// The first thread needs no_new_privs for it; the others get both.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy(p, info)}); err != nil {
		return err
	}
	return tryFilter(p)
}

// policy returns the filter for a profile: a list of what is allowed, or, for a
// process with programs of others, of what is not.
func policy(p Profile, info *arch.Info) seccomp.Policy {
	if p.Programs != "" {
		return seccomp.Policy{DefaultAction: allow, Syscalls: []seccomp.SyscallGroup{
			{Action: unknown, Names: known(info, []string{"io_uring_setup", "io_uring_enter", "io_uring_register"})},
			{Action: refuse, Names: known(info, dangerous())},
		}}
	}
	names := slices.Concat(runtimeCalls(), socketCalls())
	conditions := slices.Concat(threadCalls(), selfCalls(os.Getpid()))
	if p.Accepts {
		names = append(names, "accept", "accept4")
	}
	if p.files() {
		names = append(names, fileCalls()...)
	}
	if p.Connects != Nowhere {
		names = append(names, "connect", "bind")
		conditions = append(conditions, openSockets(p.Connects)...)
	}
	return seccomp.Policy{DefaultAction: refuse, Syscalls: []seccomp.SyscallGroup{
		{Action: unknown, Names: known(info, []string{"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"})},
		{Action: allow, Names: known(info, names), NamesWithCondtions: conditions},
	}}
}

// known leaves out the calls that this architecture does not have.
func known(info *arch.Info, names []string) []string {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, ok := info.SyscallNames[name]
		return !ok
	})
	slices.Sort(names)
	return slices.Compact(names)
}

func equal(arg uint32, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: seccomp.Equal, Value: value}
}

// threadCalls allows new threads, and no new processes or namespaces.
func threadCalls() []seccomp.NameWithConditions {
	return []seccomp.NameWithConditions{{Name: "clone", Conditions: seccomp.ArgumentConditions{
		{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD},
	}}}
}

// selfCalls allows what a process does to itself, and not to others.
func selfCalls(pid int) []seccomp.NameWithConditions {
	var out []seccomp.NameWithConditions
	only := func(name string, values ...uint64) {
		for _, v := range values {
			out = append(out, seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{equal(0, v)}})
		}
	}
	only("kill", uint64(pid))
	only("tgkill", uint64(pid))
	only("prlimit64", 0, uint64(pid))
	// Not PR_SET_DUMPABLE and PR_SET_PTRACER: memory stays closed.
	only("prctl", unix.PR_SET_VMA, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_GET_DUMPABLE, unix.PR_SET_NO_NEW_PRIVS,
		unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_SECCOMP, unix.PR_SET_THP_DISABLE, unix.PR_GET_THP_DISABLE, unix.PR_SET_TIMERSLACK,
		unix.PR_GET_TIMERSLACK)
	return out
}

// openSockets allows sockets of the kinds that are used: TCP and UDP, not its
// relatives, with the flags that Go sets, and UNIX sockets.
func openSockets(r Reach) []seccomp.NameWithConditions {
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	var out []seccomp.NameWithConditions
	socket := func(family, kind, protocol uint64) {
		out = append(out, seccomp.NameWithConditions{Name: "socket", Conditions: seccomp.ArgumentConditions{
			equal(0, family), equal(1, kind|flags), equal(2, protocol),
		}})
	}
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range []uint64{0, unix.IPPROTO_TCP} { // not IPPROTO_MPTCP
			socket(family, unix.SOCK_STREAM, protocol)
		}
		for _, protocol := range []uint64{0, unix.IPPROTO_UDP} {
			socket(family, unix.SOCK_DGRAM, protocol)
		}
	}
	if r == Anywhere {
		socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	}
	return out
}

// attempt is a call with arguments that make it fail anyway, but otherwise.
type attempt struct {
	what string
	nr   uintptr
	args [3]uintptr
	want unix.Errno
}

// none is no descriptor.
const none = ^uintptr(0)

// tryFilter makes calls that p does not allow, on this thread and a new one.
func tryFilter(p Profile) error {
	list := []attempt{
		{"ptrace", unix.SYS_PTRACE, [3]uintptr{none, none}, unix.EPERM},
		{"io_uring", unix.SYS_IO_URING_SETUP, [3]uintptr{}, unix.ENOSYS},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [3]uintptr{uintptr(os.Getpid())}, unix.EPERM},
	}
	if p.Programs == "" {
		list = append(list,
			attempt{"execve", unix.SYS_EXECVE, [3]uintptr{}, unix.EPERM},
			attempt{"execveat", unix.SYS_EXECVEAT, [3]uintptr{none}, unix.EPERM},
			attempt{"memfd_create", unix.SYS_MEMFD_CREATE, [3]uintptr{}, unix.EPERM},
			attempt{"netlink", unix.SYS_SOCKET, [3]uintptr{unix.AF_NETLINK, 0, none}, unix.EPERM},
			attempt{"mptcp", unix.SYS_SOCKET, [3]uintptr{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, unix.EPERM},
			attempt{"listen", unix.SYS_LISTEN, [3]uintptr{none}, unix.EPERM},
		)
		if !p.files() {
			list = append(list, attempt{"openat", unix.SYS_OPENAT, [3]uintptr{none}, unix.EPERM})
		}
		if p.Connects == Nowhere {
			list = append(list, attempt{"connect", unix.SYS_CONNECT, [3]uintptr{none}, unix.EPERM})
		}
	}
	other := make(chan error, 1)
	go func() { // this thread is locked, so that it is another one
		other <- tryAll(list)
	}()
	return errors.Join(tryAll(list), <-other)
}

func tryAll(list []attempt) error {
	var errs []error
	for _, a := range list {
		fd, _, err := unix.RawSyscall(a.nr, a.args[0], a.args[1], a.args[2])
		if err == 0 && a.nr == unix.SYS_SOCKET {
			unix.Close(int(fd))
		}
		if err != a.want {
			errs = append(errs, fmt.Errorf("%s is not refused: %w", a.what, err))
		}
	}
	return errors.Join(errs...)
}
