package queue

import (
	"context"
	"time"
)

// freeLimit is how many claims are ended in one transaction, beside mail that comes.
const freeLimit = 1000

// freeAbandoned ends the claims of the process before, whose mail is due then, and
// reports whether it found them all. That takes as long as there are envelopes, a second
// for a million: what was there before waits for it, lest its order be another one, and
// mail that comes does not.
func (q *Queue) freeAbandoned(ctx context.Context) bool {
	for after := (EnvelopeID{Message: -1}); ; {
		ids, err := q.store.Abandoned(ctx, after, freeLimit)
		if err == nil && len(ids) > 0 {
			err = q.commits.do(ctx, &Change{Free: ids})
		}
		if err != nil {
			if ctx.Err() == nil {
				q.log.Error("mail that the process before had in memory still waits", "error", err)
			}
			return false
		}
		if len(ids) < freeLimit {
			return true
		}
		after = ids[len(ids)-1]
	}
}

// freeLater goes on until all claims of the process before have ended.
func (q *Queue) freeLater() {
	for sleep(q.ctx, scanPause) {
		if q.freeAbandoned(q.ctx) {
			q.active.mu.Lock()
			q.storedAny(time.UnixMilli(0))
			q.active.mu.Unlock()
			return
		}
	}
}
