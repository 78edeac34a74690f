//go:build !linux

package ldaptest

import "syscall"

// endWithParent can do nothing here.
func endWithParent() *syscall.SysProcAttr { return nil }
