package lookup

import (
	"context"
	"errors"

	"tabard/table/cache"
)

// errUnsure is the answer in place of a denial that rests on what a table said
// before it went down. "No such user" is final for the sender: it takes a table
// that says so now.
var errUnsure = errors.New("a table cannot be asked now, and what it said before is not enough to deny this")

// sure asks, and lets no answer pass that denies something for good because of a
// "not found" that cannot be confirmed. What was found before goes on serving.
func sure[T any](ctx context.Context, denies func(T) bool, ask func(context.Context) (T, error)) (T, error) {
	ctx = cache.WithOrigin(ctx)
	v, err := ask(ctx)
	if err == nil && cache.OriginOf(ctx).StaleNegative() && denies(v) {
		var zero T
		return zero, errUnsure
	}
	return v, err
}

func refuses(r RecipientReply) bool { return r.Code >= 500 }
