package lookup

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"tabard/internal/config"
)

const (
	day = 24 * time.Hour
	// sweepEvery is how often certificates are looked at that nobody asks for.
	sweepEvery = time.Hour
)

// warnAt is when the end of a certificate is warned of, the nearest first.
func warnAt() []time.Duration { return []time.Duration{day, 7 * day, 14 * day, 30 * day} }

// expiry warns of certificates that end soon: once at each of warnAt.
type expiry struct {
	log    *slog.Logger
	mu     sync.Mutex
	warned *lru[[32]byte, time.Duration] // by fingerprint: the nearest that was warned of
}

func newExpiry(log *slog.Logger) *expiry {
	return &expiry{log: log, warned: newLRU[[32]byte, time.Duration](maxGood)}
}

// look warns of those of a name's certificates that end soon and have no successor
// with the same kind of key.
func (e *expiry) look(key certKey, served, all []candidate, now time.Time) {
	for _, c := range served {
		pair := c.pair()
		left := pair.leaf.NotAfter.Sub(now)
		if left > 30*day || succeeded(c, all) {
			continue
		}
		if at, first := e.nearer(pair.fingerprint, left); first {
			e.log.Warn("certificate ends soon", "source", key.source, "name", key.name, "days", int(left/day),
				"not_after", pair.leaf.NotAfter.UTC().Format(time.RFC3339), "warned_at_days", int(at/day))
		}
	}
}

// succeeded reports whether another certificate with the same kind of key lasts
// longer, perhaps one that is to begin before this one ends.
func succeeded(c candidate, all []candidate) bool {
	for _, other := range all {
		if other.pair().leaf.NotBefore.After(c.pair().leaf.NotAfter) {
			continue
		}
		if keyRank(other.pair()) == keyRank(c.pair()) && other.pair().leaf.NotAfter.After(c.pair().leaf.NotAfter) {
			return true
		}
	}
	return false
}

// nearer returns the warning that is due, and whether it was not given yet.
func (e *expiry) nearer(fingerprint [32]byte, left time.Duration) (time.Duration, bool) {
	for _, at := range warnAt() {
		if left > at {
			continue
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if old, ok := e.warned.get(fingerprint); ok && old <= at {
			return at, false
		}
		e.warned.put(fingerprint, at)
		return at, true
	}
	return 0, false
}

// WatchExpiry warns in the log of certificates that end soon, until ctx ends: 30,
// 14, 7 and 1 days before, of those that are served, and of those that nobody asks
// for as well: the defaults of listeners and actions, files, and what was served
// before.
func (s *Service) WatchExpiry(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		s.sweep(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweep asks for what it looks at, which warns. What cannot be asked is met again
// by whoever needs it.
func (s *Service) sweep(ctx context.Context) {
	for i, l := range s.cfg.Listeners {
		if l.TLS != config.TLSNone {
			_, _ = s.Certificate(ctx, CertificateRequest{Listener: i})
		}
	}
	for _, a := range s.cfg.Actions {
		if a.PKIName != "" || a.PKITable != "" {
			_, _ = s.Certificate(ctx, CertificateRequest{Action: a.Name})
		}
	}
	for _, pki := range s.cfg.PKIs {
		q := certQuery{s: s, use: UseServer}
		_, _ = q.fromFile(ctx, pki.Name)
	}
	now := s.clock()
	for _, good := range s.certs.good.all() {
		s.certs.expiry.look(good.key, good.row.usable(now), allOf(good.row), now)
	}
}
