//go:build !linux

package privsep

import "errors"

// UsageOf returns what a process takes of the machine now.
func UsageOf(int) (Usage, error) { return Usage{}, errors.ErrUnsupported }
