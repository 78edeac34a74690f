//go:build linux || darwin || freebsd

package sqlite

import (
	"os"

	"golang.org/x/sys/unix"
)

// Space returns how many bytes of the file system of f are free for us, and all of them.
func (system) Space(f *os.File) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	unit := int64(st.Bsize)
	return int64(st.Bavail) * unit, int64(st.Blocks) * unit, nil
}
