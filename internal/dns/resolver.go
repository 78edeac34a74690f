package dns

import (
	"context"
	"errors"
	"time"

	mdns "github.com/miekg/dns"
)

// Config says whom to ask. Zero fields take the defaults given.
type Config struct {
	Servers []string      // host:port, asked in this order
	Hosts   *Hosts        // names known without asking; nil: localhost alone
	Timeout time.Duration // for one try at one server; default 5 s
	Rounds  int           // how often the list is gone through; default 2
	Cache   int           // answers remembered; default 10,000
}

// Resolver answers questions from a bounded cache and from DNS servers. It is
// safe for concurrent use.
type Resolver struct {
	cfg    Config
	hosts  *Hosts
	cache  *cache
	flight *flight
}

// New returns a resolver. It asks nothing yet.
func New(cfg Config) *Resolver {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Rounds <= 0 {
		cfg.Rounds = 2
	}
	if cfg.Cache <= 0 {
		cfg.Cache = 10000
	}
	hosts := cfg.Hosts
	if hosts == nil {
		hosts = localhost()
	}
	return &Resolver{cfg: cfg, hosts: hosts, cache: newCache(cfg.Cache), flight: newFlight()}
}

// ask answers from the cache, or asks once for everybody who wants to know.
func (r *Resolver) ask(ctx context.Context, q question) (*answer, error) {
	ans, left, known := r.cache.get(q, time.Now())
	if !known {
		var err error
		ans, err = r.flight.do(ctx, q, r.cfg.total(), func(ctx context.Context) (*answer, error) {
			return r.resolve(ctx, q)
		})
		if err != nil {
			trace(ctx, func() Asked { return askedOf(q, nil, 0, false, err) })
			return nil, err
		}
		left = ans.ttl
	}
	trace(ctx, func() Asked { return askedOf(q, ans, left, known, ans.err) })
	return ans, ans.err
}

// resolve asks the servers and remembers the outcome.
func (r *Resolver) resolve(ctx context.Context, q question) (*answer, error) {
	ans, err := r.follow(ctx, q)
	if err != nil {
		return nil, err
	}
	r.cache.put(q, ans, time.Now())
	return ans, nil
}

// follow asks again for the target of an alias that the answer did not resolve.
func (r *Resolver) follow(ctx context.Context, q question) (*answer, error) {
	ttl, proven := maxTTL, true
	step := q
	for range maxChain {
		m, err := r.exchange(ctx, step)
		if err != nil {
			return nil, err
		}
		ans := readAnswer(step, m)
		ttl, proven = min(ttl, ans.ttl), proven && m.AuthenticatedData
		if ans.next == "" {
			ans.ttl = ttl
			for i := range ans.mx {
				ans.mx[i].Proven = proven
			}
			return ans, nil
		}
		// Any name may be an alias on the way (RFC 2317 has slashes in them).
		if _, ok := mdns.IsDomainName(ans.next); !ok {
			return nil, temporary(q, errors.New("alias to a malformed name"))
		}
		step.name = ans.next
	}
	return nil, temporary(q, errors.New("alias chain too long"))
}
