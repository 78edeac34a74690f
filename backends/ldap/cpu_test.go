package ldap

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// cpuTime is the processor time that a process has used: all its threads, user
// and system. Unlike the time on the clock it says the same on a busy machine.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // a system without it
	}
	var user, system int64
	_, fields, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(fields)
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * (time.Second / 100)
}

// reportCPU measures what a benchmark costs us and the server, per question.
func reportCPU(b *testing.B, server int) (stop func()) {
	b.Helper()
	own, theirs := cpuTime(b, os.Getpid()), cpuTime(b, server)
	return func() {
		per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
		b.ReportMetric(per(cpuTime(b, os.Getpid())-own), "own-cpu-us/op")
		b.ReportMetric(per(cpuTime(b, server)-theirs), "slapd-cpu-us/op")
	}
}
