package lookup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tabard/internal/config"
	"tabard/internal/password"
	"tabard/table"
	"tabard/table/cache"
)

// registry holds every table by name, the built-in ones included.
type registry struct {
	byName   map[config.TableRef]*table.Table
	policies map[string]password.Policy // by table, where there is another than the default
	health   map[string]*health         // of the sources of declared tables
}

func openTables(ctx context.Context, o Options, hostname string, log *slog.Logger) (*registry, error) {
	r := &registry{byName: make(map[config.TableRef]*table.Table), policies: make(map[string]password.Policy), health: make(map[string]*health)}
	for name, b := range builtins(hostname) {
		r.byName[name] = table.New(string(name), b, o.Timeout)
	}
	for _, t := range o.Config.Tables {
		if _, taken := r.byName[config.TableRef(t.Name)]; taken {
			return nil, errors.Join(fmt.Errorf("%s: table %s is declared twice or built in", t.Pos, t.Name), r.close())
		}
		if policy := password.Policy(t.Auth); policy != (password.Policy{}) {
			r.policies[t.Name] = policy
		}
		h := newHealth(time.Now)
		r.health[t.Name] = h
		b, err := openTable(ctx, t, o, h, log)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: table %s: %w", t.Pos, t.Name, err), r.close())
		}
		r.byName[config.TableRef(t.Name)] = table.New(t.Name, b, o.Timeout)
	}
	return r, nil
}

// openTable opens a declared table, with a cache in front of what is not in
// memory anyway.
func openTable(ctx context.Context, t config.Table, o Options, h *health, log *slog.Logger) (table.Backend, error) {
	b := &reopening{decl: t, open: o.Open, health: h, log: log, clock: time.Now}
	if _, err := b.get(ctx); err != nil {
		log.Warn("table cannot be opened; its questions are temporary errors until it can", "table", t.Name, "error", err)
	}
	if t.Kind == "static" || t.Kind == "file" || t.Cache.Off {
		return b, nil
	}
	return cache.New(b, cache.Options{
		Name: t.Name, TTL: t.Cache.TTL, StaleTTL: t.Cache.StaleTTL, Size: t.Cache.Size, Timeout: o.Timeout, Log: log, Clock: o.Clock,
	})
}

// get returns a table that the configuration names.
func (r *registry) get(name config.TableRef) (*table.Table, error) {
	t, ok := r.byName[name]
	if !ok {
		return nil, fmt.Errorf("table %q: %w", name, errUnknown)
	}
	return t, nil
}

func (r *registry) close() error {
	var errs []error
	for _, t := range r.byName {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}
