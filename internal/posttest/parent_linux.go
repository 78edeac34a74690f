package posttest

import "syscall"

// endWithParent stops Postfix when the program that started it is killed.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
