//go:build !linux && !openbsd

package sandbox

import (
	"fmt"
	"runtime"
)

// apply says that there is nothing to use here.
func apply(Profile) []Layer {
	return []Layer{NewLayer("sandbox", fmt.Errorf("not available on %s", runtime.GOOS))}
}
