package privsep

import (
	"os"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	u, err := UsageOf(os.Getpid())
	if err != nil || u.Memory < 1<<20 || u.Threads < 2 || u.CPU < 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := UsageOf(-1); err == nil {
		t.Error("there is no such process")
	}
	page := int64(os.Getpagesize())
	for text, want := range map[string]Usage{
		"7 (a) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1 2 30 4": {Memory: 30 * page, CPU: 2 * time.Second, Threads: 9},
		// A process may call itself what it likes.
		"7 (x) R 1 ) 0) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1 2 30 4": {Memory: 30 * page, CPU: 2 * time.Second, Threads: 9},
	} {
		if got, err := parseStat(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "7 (a) S 1 2", "7 (a) S 1 2 3 4 5 6 7 8 9 10 x 50 0 0 20 0 9 0 1 2 30 4"} {
		if got, err := parseStat(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
