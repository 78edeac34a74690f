//go:build !linux

package deliver

// closeInherited makes descriptors that came from the parent close on exec;
// Go's own are that way already.
func closeInherited() { closeLow() }
