package queue

import (
	"context"
	"slices"
)

// maxRecoveries bounds how many envelopes are remembered in all, those that had
// their early attempt included: 16 bytes each.
const maxRecoveries = 100_000

// recovery remembers, for each destination, some of the envelopes that wait since it
// could not be reached. When it takes a message again, these are tried at once
// instead of at their time, which may be hours away. Each has that favour once: one
// whose own attempts fail while others succeed must not be tried with each of them.
// Its methods need active.mu.
type recovery struct {
	waiting map[string][]EnvelopeID
	had     map[EnvelopeID]struct{}
	total   int // in waiting
}

func newRecovery() recovery {
	return recovery{waiting: make(map[string][]EnvelopeID), had: make(map[EnvelopeID]struct{})}
}

// note takes an attempt into account that is durable. It returns the envelopes to be
// tried at once.
func (r *recovery) note(it *item, result *Result, most int) []EnvelopeID {
	key := it.dest.key
	switch {
	case !it.env.Relay:
	case result.Outcome == Deferred && result.Code == 0:
		_, had := r.had[it.env.ID]
		if list := r.waiting[key]; !had && len(list) < most && r.total < maxRecoveries {
			r.waiting[key] = append(list, it.env.ID)
			r.total++
		}
	case result.Outcome == Delivered:
		ids := r.waiting[key]
		delete(r.waiting, key)
		r.total -= len(ids)
		for _, id := range ids {
			if len(r.had) >= maxRecoveries {
				clear(r.had)
			}
			r.had[id] = struct{}{}
		}
		return ids
	}
	return nil
}

// recovered makes envelopes due that still wait for an attempt which is not near.
func (q *Queue) recovered(ctx context.Context, key string, ids []EnvelopeID) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	for part := range slices.Chunk(names, maxSteer) {
		_, err := q.Steer(ctx, Steer{
			Op: OpRetry, Filter: Filter{IDs: part, States: []State{StateDeferred}}, Limit: maxSteer,
			Reason: "destination " + key + " answers again", unurged: true,
		})
		if err != nil {
			q.log.Warn("queue: mail for a destination that answers again waits for its time", "destination", key, "error", err)
			return
		}
	}
}
