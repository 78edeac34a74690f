package proc

import (
	"os/exec"
	"runtime"
	"syscall"
)

// ownGroup gives a program a group of its own, and an end when we end.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// start starts a program and sees to its end. The signal of Pdeathsig comes when
// the thread that started it ends, not the process: so one is kept for it.
func start(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ends is told by what it said last
		}
	}()
	return <-started
}
