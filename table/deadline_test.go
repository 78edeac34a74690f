package table

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestDeadline: the context of a question is as one of the standard library in all that
// can be seen of it.
func TestDeadline(t *testing.T) {
	t.Parallel()
	type maker = func(context.Context, time.Duration) (context.Context, context.CancelFunc)
	type key struct{}
	for name, use := range map[string]func(t *testing.T, set maker) []any{
		"nothing happens": func(t *testing.T, set maker) []any {
			ctx, cancel := set(context.WithValue(t.Context(), key{}, 1), time.Hour)
			defer cancel()
			_, bounded := ctx.Deadline()
			return []any{ctx.Err(), bounded, ctx.Value(key{}), isDone(ctx), ctx.Err(), ctx.Value(key{})}
		},
		"it has ended": func(t *testing.T, set maker) []any {
			ctx, cancel := set(t.Context(), time.Hour)
			cancel()
			return []any{ctx.Err(), isDone(ctx), ctx.Err()}
		},
		"it ends while somebody waits": func(t *testing.T, set maker) []any {
			ctx, cancel := set(t.Context(), time.Hour)
			done := ctx.Done()
			cancel()
			<-done
			return []any{ctx.Err(), context.Cause(ctx)}
		},
		"time is over before anybody looks": func(t *testing.T, set maker) []any {
			ctx, cancel := set(t.Context(), -time.Second)
			defer cancel()
			return []any{ctx.Err(), isDone(ctx), ctx.Err()}
		},
		"time is over while somebody waits": func(t *testing.T, set maker) []any {
			ctx, cancel := set(t.Context(), time.Millisecond)
			defer cancel()
			<-ctx.Done()
			return []any{ctx.Err()}
		},
		"the time of what it is part of is over earlier": func(t *testing.T, set maker) []any {
			parent, end := context.WithTimeout(t.Context(), time.Millisecond)
			defer end()
			ctx, cancel := set(parent, time.Hour)
			defer cancel()
			<-ctx.Done()
			at, _ := ctx.Deadline()
			of, _ := parent.Deadline()
			return []any{ctx.Err(), at.Equal(of)}
		},
		"what it is part of ends": func(t *testing.T, set maker) []any {
			parent, end := context.WithCancel(t.Context())
			ctx, cancel := set(parent, time.Hour)
			defer cancel()
			end()
			return []any{ctx.Err(), isDone(ctx)}
		},
		"what is part of it": func(t *testing.T, set maker) []any {
			ctx, cancel := set(t.Context(), time.Hour)
			part, end := context.WithCancelCause(ctx)
			defer end(nil)
			before := part.Err()
			cancel()
			<-part.Done()
			return []any{before, part.Err(), context.Cause(part)}
		},
		"it is over time, and then ended": func(t *testing.T, set maker) []any {
			ctx, cancel := set(t.Context(), -time.Second)
			first := ctx.Err()
			cancel()
			return []any{first, ctx.Err()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, want := use(t, within), use(t, context.WithTimeout)
			for i := range want {
				a, isErr := got[i].(error)
				b, _ := want[i].(error)
				if got[i] != want[i] && (!isErr || !errors.Is(a, b)) {
					t.Errorf("%d: got %v, of the standard library %v", i, got[i], want[i])
				}
			}
		})
	}
}

// isDone reports whether a context has ended. It waits for what ends it.
func isDone(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}
