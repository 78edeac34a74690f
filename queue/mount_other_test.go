//go:build !linux

package queue_test

import (
	"errors"
	"syscall"
)

func ownMounts() *syscall.SysProcAttr { return nil }

func mountSmall(string) error { return errors.New("only Linux has mount namespaces") }
