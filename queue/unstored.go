package queue

import (
	"sync"
	"time"
)

// unstored is what there is to say of results that the store does not take. There may be
// many, and each is tried again soon.
type unstored struct {
	mu      sync.Mutex
	waiting int
	said    time.Time
}

// unstoredPause is at least between two lines of the log about them.
const unstoredPause = time.Minute

// notStored notes an attempt to store a result, of which n more wait than before.
func (q *Queue) notStored(err error, n int) {
	u := &q.unstored
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waiting += n
	now := time.Now()
	switch {
	case err != nil && q.ctx.Err() == nil && now.Sub(u.said) >= unstoredPause:
		u.said = now
		q.log.Error("queue result not stored, trying again", "error", err, "results", u.waiting)
	case err == nil && u.waiting == 0:
		u.said = time.Time{}
		q.log.Info("queue results stored that had to wait")
	}
}
