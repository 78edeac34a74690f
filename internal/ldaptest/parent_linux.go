package ldaptest

import "syscall"

// endWithParent stops slapd when the program that started it is killed.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
