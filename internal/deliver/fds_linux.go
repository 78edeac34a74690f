package deliver

import (
	"math"

	"golang.org/x/sys/unix"
)

// closeInherited makes descriptors that came from the parent close on exec;
// Go's own are that way already.
func closeInherited() {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		closeLow()
	}
}
