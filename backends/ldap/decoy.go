package ldap

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// Where a user is searched first, one who is not found needs no bind, and would be
// told apart from one whose password is wrong by how soon the answer comes. So an
// answer waits as long as a bind takes, in the place of one.
//
// It is a wait and not a bind. A bind as somebody else would count as a failure of
// his, and could lock him out; one as an entry that is nobody's is refused by most
// servers before they hash anything, which is the part that takes time, and fills
// their logs with names that nobody has.

const (
	// bindsKept is how many of the last binds tell how long one takes.
	bindsKept = 32
	// bindGuess is how long one is thought to take before the first.
	bindGuess = 20 * time.Millisecond
)

// bindTimes remembers how long binds took.
type bindTimes struct {
	seed maphash.Seed

	mu   sync.Mutex
	last []time.Duration // bindsKept at most
	next int             // to be replaced
}

// add notes a bind that the server judged.
func (b *bindTimes) add(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.last) < bindsKept {
		b.last = append(b.last, d)
		return
	}
	b.last[b.next] = d
	b.next = (b.next + 1) % bindsKept
}

// like returns how long the bind of a user would take. Servers hash passwords in
// ways that differ from user to user, but not from one attempt to the next: so a
// name always has the same place among the times that are known.
func (b *bindTimes) like(user string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.last) == 0 {
		return bindGuess
	}
	sorted := slices.Sorted(slices.Values(b.last))
	return sorted[maphash.String(b.seed, normal(user))%uint64(len(sorted))]
}

// pretend takes as long as a bind as user, waiting for its turn included.
func (b *binder) pretend(ctx context.Context, user string) error {
	ctx, cancel := b.patience(ctx)
	defer cancel()
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.leave()
	select {
	case <-time.After(b.times.like(user)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
