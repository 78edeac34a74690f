// Package proctree reads from /proc (Linux) what a process and everything below
// it cost: CPU time and memory. bench and the memory tests use it.
package proctree

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is USER_HZ, which Linux fixes at 100 for /proc.
const clockTick = 10 * time.Millisecond

// Stat is one line of /proc/PID/stat, as far as it is needed.
type Stat struct {
	PID, Parent int
	CPU         time.Duration // user and system, children that were reaped included
}

// Tree returns root and every process below it.
func Tree(root int) ([]Stat, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	all := map[int]Stat{}
	for _, d := range dirs {
		if s, err := read(d); err == nil { // it may have ended meanwhile
			all[s.PID] = s
		}
	}
	if _, ok := all[root]; !ok {
		return nil, fmt.Errorf("process %d is not there", root)
	}
	var tree []Stat
	for _, s := range all {
		for p := s.PID; p != 0; p = all[p].Parent {
			if p == root {
				tree = append(tree, s)
				break
			}
		}
	}
	return tree, nil
}

// CPU returns the CPU time of root and everything below it.
func CPU(root int) (time.Duration, error) {
	tree, err := Tree(root)
	var sum time.Duration
	for _, s := range tree {
		sum += s.CPU
	}
	return sum, err
}

// Written returns how many bytes root and everything below it, what has ended included,
// have had written to storage: what the file system writes of its own is not in it.
func Written(root int) (int64, error) {
	tree, err := Tree(root)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, s := range tree {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.PID))
		if err != nil {
			continue // it has ended meanwhile
		}
		_, rest, _ := strings.Cut(string(text), "\nwrite_bytes: ")
		line, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("process %d: bytes written: %w", s.PID, err)
		}
		sum += n
	}
	return sum, nil
}

// Find returns the processes below root whose argv[0] is title.
func Find(root int, title string) ([]int, error) {
	tree, err := Tree(root)
	var pids []int
	for _, s := range tree {
		cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.PID))
		if err != nil {
			continue
		}
		if argv0, _, _ := bytes.Cut(cmd, []byte{0}); string(argv0) == title {
			pids = append(pids, s.PID)
		}
	}
	return pids, err
}

func read(dir string) (Stat, error) {
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Stat{}, err
	}
	// The command's name is in parentheses and may hold anything.
	end := strings.LastIndexByte(string(text), ')')
	begin := strings.IndexByte(string(text), ' ')
	if end < 0 || begin < 0 {
		return Stat{}, fmt.Errorf("%s/stat: no command", dir)
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 15 {
		return Stat{}, fmt.Errorf("%s/stat: %d fields", dir, len(f))
	}
	s := Stat{}
	if s.PID, err = strconv.Atoi(string(text[:begin])); err != nil {
		return Stat{}, err
	}
	if s.Parent, err = strconv.Atoi(f[1]); err != nil {
		return Stat{}, err
	}
	for _, field := range f[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return Stat{}, err
		}
		s.CPU += time.Duration(n) * clockTick
	}
	return s, nil
}

// Holds reports whether the readable memory of a process contains needle.
func Holds(pid int, needle []byte) (bool, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return false, err
	}
	defer func() { _ = mem.Close() }()
	read := false
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var perm string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); n != 3 || perm[0] != 'r' || strings.Contains(line, "[v") {
			continue
		}
		found, ok := scan(mem, from, to, needle)
		if found {
			return true, nil
		}
		read = read || ok
	}
	if !read {
		return false, fmt.Errorf("no memory of process %d could be read", pid)
	}
	return false, nil
}

// scan looks for needle in one mapping, in pieces that overlap.
func scan(mem *os.File, from, to uint64, needle []byte) (found, ok bool) {
	const piece = 4 << 20
	buf := make([]byte, piece+len(needle))
	for at := from; at < to; at += piece {
		n, _ := mem.ReadAt(buf[:min(uint64(len(buf)), to-at)], int64(at))
		if n > 0 {
			ok = true
		}
		if bytes.Contains(buf[:n], needle) {
			return true, true
		}
	}
	return false, ok
}
