package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tabard/bench/proctree"
)

// written is how many bytes were written so far: to the block device below dir, with all
// that the file system adds, once nothing waits any more to be written there; where dir
// is on no such device, by the processes below pid.
func written(dir string, pid int) (int64, error) {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return 0, err
	}
	defer func() { _ = d.Close() }()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return 0, fmt.Errorf("sync %s: %w", dir, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if os.IsNotExist(err) {
		return proctree.Written(pid)
	}
	if err != nil {
		return 0, err
	}
	const sectors, sector = 6, 512
	f := strings.Fields(string(text))
	if len(f) <= sectors {
		return 0, fmt.Errorf("the device of %s says %q", dir, text)
	}
	n, err := strconv.ParseInt(f[sectors], 10, 64)
	return n * sector, err
}
