//go:build !linux

package privsep

import "errors"

var errSystem = errors.New("not available on this system")

func setNoNewPrivs() error { return errSystem }

func setUndumpable() error { return errSystem }

func nameProcess(string) {}

func keepFromChildren(first int) error { return markEach(first) }
