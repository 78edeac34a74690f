//go:build !linux

package proc

import (
	"os/exec"
	"syscall"
)

// ownGroup gives a program a group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// start starts a program and sees to its end.
func start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // how it ends is told by what it said last
	return nil
}
