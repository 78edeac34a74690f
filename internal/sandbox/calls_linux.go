//go:build linux && (amd64 || arm64)

package sandbox

// The calls are listed by what they are for. They are generous with what does no
// harm: another version of Go or of the kernel may want it. A name that one of
// the architectures lacks is left out there.

// runtimeCalls are what the Go runtime and its libraries need to live: memory,
// threads, clocks, and descriptors that are open already.
func runtimeCalls() []string {
	return []string{
		"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2",
		"close", "close_range", "dup", "dup2", "dup3", "fcntl", "fstat", "lseek", "pipe", "pipe2",
		"sendfile", "splice", "tee", "eventfd", "eventfd2",
		"epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
		"poll", "ppoll", "select", "pselect6",
		"mmap", "munmap", "mprotect", "mremap", "madvise", "mincore", "msync", "brk", "mlock", "mlock2", "munlock",
		"mseal", "membarrier", "get_mempolicy", "arch_prctl", "map_shadow_stack",
		"futex", "futex_waitv", "futex_wait", "futex_wake", "futex_requeue",
		"set_robust_list", "get_robust_list", "set_tid_address", "rseq",
		"sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_get_priority_max",
		"sched_get_priority_min", "getcpu", "getpriority",
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack",
		"restart_syscall",
		"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "times",
		"timer_create", "timer_settime", "timer_gettime", "timer_getoverrun", "timer_delete", "setitimer", "getitimer",
		"timerfd_create", "timerfd_settime", "timerfd_gettime",
		"getpid", "gettid", "getppid", "getpgrp", "getpgid", "getsid", "getuid", "geteuid", "getgid", "getegid",
		"getgroups", "getresuid", "getresgid", "getrlimit", "getrusage", "sysinfo", "uname", "getrandom",
		"exit", "exit_group",
	}
}

// socketCalls are what is done with sockets that are open already.
func socketCalls() []string {
	return []string{
		"recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg", "shutdown",
		"getsockname", "getpeername", "getsockopt", "setsockopt",
	}
}

// fileCalls are what processes do that have files; which files those are, is for
// landlock and the user's rights to say.
func fileCalls() []string {
	return []string{
		"open", "openat", "openat2", "creat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2",
		"readlink", "readlinkat", "getdents", "getdents64", "getcwd", "chdir", "fchdir", "statfs", "fstatfs", "umask",
		"rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link", "linkat",
		"symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat",
		"truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "sync", "syncfs", "flock",
		"utime", "utimes", "futimesat", "utimensat", "fadvise64", "readahead", "cachestat", "copy_file_range",
		"inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
	}
}

// dangerous are what no program has to do that a mail server executes. io_uring,
// which gets around filters like this one, is answered as in an old kernel.
func dangerous() []string {
	return []string{
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
		"bpf", "perf_event_open", "userfaultfd", "add_key", "request_key", "keyctl",
		"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot",
		"mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
		"unshare", "setns", "open_by_handle_at", "name_to_handle_at", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd",
		"syslog", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname",
		"iopl", "ioperm", "modify_ldt", "vhangup", "personality", "lookup_dcookie", "nfsservctl", "_sysctl", "uselib",
	}
}
