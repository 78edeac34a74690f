//go:build !linux && !darwin && !freebsd

package sqlite

import (
	"errors"
	"os"
)

// Space is not known here.
func (system) Space(*os.File) (free, total int64, err error) { return 0, 0, errors.ErrUnsupported }
