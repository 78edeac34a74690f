package privsep

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// What proc(5) counts time in, for every architecture.
const ticksPerSecond = 100

// Fields of /proc/PID/stat after the name of the program.
const (
	statUser    = 11
	statSystem  = 12
	statThreads = 17
	statMemory  = 21 // pages
)

// UsageOf returns what a process takes of the machine now.
func UsageOf(pid int) (Usage, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	return parseStat(string(text))
}

func parseStat(text string) (Usage, error) {
	// The name is the process' own choice, and may hold anything.
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	var n [statMemory + 1]int64
	for _, i := range []int{statUser, statSystem, statThreads, statMemory} {
		if i >= len(fields) {
			return Usage{}, fmt.Errorf("%d fields in /proc/PID/stat", len(fields))
		}
		var err error
		if n[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return Usage{}, err
		}
	}
	return Usage{
		Memory: n[statMemory] * int64(os.Getpagesize()), Threads: int(n[statThreads]),
		CPU: time.Duration(n[statUser]+n[statSystem]) * (time.Second / ticksPerSecond),
	}, nil
}
