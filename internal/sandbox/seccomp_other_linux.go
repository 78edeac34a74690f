//go:build linux && !amd64 && !arm64

package sandbox

import (
	"fmt"
	"runtime"
)

// filter says that there is no list of calls for this architecture.
func filter(Profile) error { return fmt.Errorf("not available on linux/%s", runtime.GOARCH) }
