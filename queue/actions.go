package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tabard/internal/rpc"
	"tabard/lookup"
)

const (
	actionsPause = 5 * time.Second // after a failure, or a question in vain
	actionsWait  = 2 * time.Second
)

// actions knows the configured actions. SetRules says when they have changed.
type actions struct {
	local lookup.Local
	known atomic.Pointer[map[string]lookup.ActionInfo]

	mu    sync.Mutex
	asked time.Time
}

// get returns what is known of an action. A name never heard of is asked for;
// without an answer the defaults apply, for mail is not refused for that.
func (a *actions) get(ctx context.Context, name string) lookup.ActionInfo {
	if name == "" { // by MX without an action
		return lookup.ActionInfo{Relay: true}
	}
	if info, ok := a.lookup(name); ok {
		return info
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if info, ok := a.lookup(name); ok || time.Since(a.asked) < actionsPause {
		return info
	}
	_ = a.ask(ctx) // the next one asks again
	info, _ := a.lookup(name)
	return info
}

func (a *actions) lookup(name string) (lookup.ActionInfo, bool) {
	known := a.known.Load()
	if known == nil {
		return lookup.ActionInfo{}, false
	}
	info, ok := (*known)[name]
	return info, ok
}

func (a *actions) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, actionsWait)
	defer cancel()
	a.asked = time.Now()
	list, err := a.local.Actions(ctx)
	if err != nil {
		return err
	}
	known := make(map[string]lookup.ActionInfo, len(list))
	for _, info := range list {
		known[info.Name] = info
	}
	a.known.Store(&known)
	return nil
}

// missing returns an error that names the actions there are, when name is none of
// them. Without an answer nothing is known to be missing.
func (a *actions) missing(ctx context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.ask(ctx); err != nil {
		return nil
	}
	known := *a.known.Load()
	if _, ok := known[name]; ok {
		return nil
	}
	const most = 20
	names := slices.Sorted(maps.Keys(known))
	rest := ""
	if len(names) > most {
		rest = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	return fmt.Errorf("%w: there is no action %.60q, only %.60q%s", rpc.ErrInvalid, name, names, rest)
}

// renew asks for all actions at once, because they have changed. Without an
// answer what was known is forgotten, to be asked for when it is needed.
func (a *actions) renew(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.ask(ctx); err != nil {
		a.known.Store(nil)
		a.asked = time.Time{}
	}
}
