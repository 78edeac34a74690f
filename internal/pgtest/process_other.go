//go:build !linux

package pgtest

import "syscall"

// processAttr makes the server a group of its own. Here it outlives a test
// program that is killed.
func processAttr(o *owner) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if o != nil {
		attr.Credential = &syscall.Credential{Uid: o.uid, Gid: o.gid}
	}
	return attr
}
