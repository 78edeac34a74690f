package cache

import (
	"context"
	"sync/atomic"
)

// Origin tells where the answers to one request came from. It is safe for
// concurrent use.
type Origin struct {
	refresh  bool
	hits     atomic.Int64
	misses   atomic.Int64
	stale    atomic.Int64
	staleNot atomic.Int64
}

type originKey struct{}

// WithOrigin returns a context that notes where answers come from; see OriginOf.
func WithOrigin(ctx context.Context) context.Context {
	return context.WithValue(ctx, originKey{}, &Origin{})
}

// Fresh returns a context whose questions are put to the backend whatever is
// known. Their answers are kept.
func Fresh(ctx context.Context) context.Context {
	return context.WithValue(ctx, originKey{}, &Origin{refresh: true})
}

// OriginOf returns the Origin of a context, or nil.
func OriginOf(ctx context.Context) *Origin {
	o, _ := ctx.Value(originKey{}).(*Origin)
	return o
}

// Cached reports whether every answer was given from memory.
func (o *Origin) Cached() bool {
	return o != nil && o.misses.Load() == 0 && o.hits.Load()+o.stale.Load() > 0
}

// Stale reports whether an answer was given that cannot be confirmed now.
func (o *Origin) Stale() bool { return o != nil && o.stale.Load() > 0 }

// StaleNegative reports whether one of those was "not found": nothing may be
// refused for good because of it.
func (o *Origin) StaleNegative() bool { return o != nil && o.staleNot.Load() > 0 }

func (o *Origin) fresh() bool { return o != nil && o.refresh }

func (o *Origin) hit() {
	if o != nil {
		o.hits.Add(1)
	}
}

func (o *Origin) miss() {
	if o != nil {
		o.misses.Add(1)
	}
}

func (o *Origin) old(found bool) {
	if o == nil {
		return
	}
	o.stale.Add(1)
	if !found {
		o.staleNot.Add(1)
	}
}
