package privsep

import "time"

// Backoff paces the restarts of one process: at once the first time, then after
// First, doubling up to Max; a process that ran for Healthy begins anew.
type Backoff struct {
	First   time.Duration // default 100 ms
	Max     time.Duration // default 10 s
	Healthy time.Duration // default 30 s
}

func (b *Backoff) defaults() {
	if b.First == 0 {
		b.First = 100 * time.Millisecond
	}
	if b.Max == 0 {
		b.Max = 10 * time.Second
	}
	if b.Healthy == 0 {
		b.Healthy = 30 * time.Second
	}
}

// delay returns how long to wait after the nth failure in a row, from 1.
func (b Backoff) delay(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	d := b.First
	for range n - 2 {
		if d = min(2*d, b.Max); d == b.Max {
			break
		}
	}
	return min(d, b.Max)
}
