//go:build linux && (amd64 || arm64)

package sandboxtest

import (
	"os"
	"runtime"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// Forget has the system refuse calls, from now on and in programs executed, as a
// kernel does that does not know them.
func Forget(calls ...string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// root may load a filter without giving up the privileges of what it executes.
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: os.Geteuid() != 0, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Names: calls, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)}},
	}})
}

// Landlock returns the calls of landlock.
func Landlock() []string {
	return []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
}
