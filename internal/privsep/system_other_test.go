//go:build !linux

package privsep

func prctls() (noNewPrivs, undumpable bool) { return false, false }
