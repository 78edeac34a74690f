package table

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
)

// Account is the answer of service userinfo.
type Account struct {
	UID  int64  // -1: the server's own mail user
	GID  int64  // -1: likewise
	Home string // absolute and clean; empty: none
}

// ParseUserInfo reads "uid:gid:home", or the three as columns. An empty uid or
// gid is -1.
func ParseUserInfo(row Row) (Account, error) {
	cols := []string(row)
	if len(row) == 1 {
		cols = strings.SplitN(row[0], ":", 3)
	}
	if len(cols) != 3 {
		return Account{}, fmt.Errorf("userinfo: %d fields, want uid, gid and home", len(cols))
	}
	uid, err := parseID("uid", cols[0])
	if err != nil {
		return Account{}, err
	}
	gid, err := parseID("gid", cols[1])
	if err != nil {
		return Account{}, err
	}
	home := cols[2]
	if home != "" && home[0] != '/' || strings.ContainsAny(home, "\x00\r\n") {
		return Account{}, fmt.Errorf("userinfo: home %q is not an absolute path", home)
	}
	if home != "" {
		home = path.Clean(home)
	}
	return Account{UID: uid, GID: gid, Home: home}, nil
}

// parseID reads a numeric id. The highest 32-bit value is the kernel's "none".
func parseID(what, s string) (int64, error) {
	if s == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, fmt.Errorf("userinfo: %s %q is not a number from 0 to 4294967294", what, s)
	}
	return int64(n), nil
}
