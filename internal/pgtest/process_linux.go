package pgtest

import "syscall"

// processAttr makes the server a group of its own, which ends when the program
// that started it is killed.
func processAttr(o *owner) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if o != nil {
		attr.Credential = &syscall.Credential{Uid: o.uid, Gid: o.gid}
	}
	return attr
}
