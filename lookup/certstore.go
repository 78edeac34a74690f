package lookup

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"tabard/table"
)

const (
	// maxGood bounds for how many names the last good certificate is kept.
	maxGood = 8192
	// maxFaults bounds how many faults are listed.
	maxFaults = 1000
	// staleTTL is how long the last good certificate serves when its table
	// cannot be asked.
	staleTTL = time.Hour
)

// CertificateFault is a certificate that is in a table or file but is not
// served.
type CertificateFault struct {
	Source  string // "table mail" or "pki NAME"
	Name    string
	Cause   string
	Reason  string // one of FaultReasons
	Since   time.Time
	Serving bool // an earlier or another certificate of the name is served meanwhile
}

// certStore remembers, for each name, the last certificate that was good, so
// that a broken replacement never displaces it.
type certStore struct {
	log    *slog.Logger
	clock  func() time.Time
	files  *pemFiles
	good   *lru[certKey, goodCert]
	absent *lru[certKey, time.Time]
	faults *lru[certKey, *CertificateFault]
	expiry *expiry
}

// certKey names a certificate: where it comes from and as what.
type certKey struct{ source, name string }

type goodCert struct {
	key  certKey
	row  *parsedRow
	seen time.Time
}

// candidate is a key pair that could be served.
type candidate struct {
	row *parsedRow
	i   int
}

func (c candidate) pair() *keyPair { return c.row.pairs[c.i] }

func newCertStore(log *slog.Logger, clock func() time.Time) *certStore {
	return &certStore{
		log: log, clock: clock, files: newPEMFiles(),
		good:   newLRU[certKey, goodCert](maxGood),
		absent: newLRU[certKey, time.Time](maxGood),
		faults: newLRU[certKey, *CertificateFault](maxFaults),
		expiry: newExpiry(log),
	}
}

// certSource returns the cert row of a name, or table.ErrNotFound.
type certSource func(ctx context.Context, name string) (table.Row, error)

// candidates returns what can be served for a name now: from the present row,
// else from the last good one. None means that the name is not there.
func (c *certStore) candidates(ctx context.Context, key certKey, from certSource, custody *custody) ([]candidate, error) {
	now := c.clock()
	row, err := from(ctx, key.name)
	if errors.Is(err, table.ErrNotFound) {
		c.good.remove(key)
		c.faults.remove(key)
		c.absent.put(key, now)
		return nil, nil
	}
	if err != nil {
		return c.stale(key, err, now)
	}
	p := custody.open(row)
	usable := p.usable(now)
	if len(usable) > 0 {
		c.good.put(key, goodCert{key, p, now})
		c.expiry.look(key, usable, allOf(p), now)
		if p.err == nil {
			c.mended(key)
		} else {
			c.fault(key, p.err, faultReason(p.err), now, true)
		}
		return usable, nil
	}
	return c.instead(key, p.fault(now), now), nil
}

// instead returns what was good last, in place of what has a fault.
func (c *certStore) instead(key certKey, fault error, now time.Time) []candidate {
	old, _ := c.good.get(key)
	usable := old.row.usable(now)
	c.fault(key, fault, faultReason(fault), now, len(usable) > 0)
	return usable
}

// stale answers while the source cannot be asked.
func (c *certStore) stale(key certKey, err error, now time.Time) ([]candidate, error) {
	if old, ok := c.good.get(key); ok && now.Sub(old.seen) < staleTTL {
		if usable := old.row.usable(now); len(usable) > 0 {
			c.fault(key, err, FaultUnavailable, now, true)
			return usable, nil
		}
	}
	if seen, ok := c.absent.get(key); ok && now.Sub(seen) < staleTTL {
		return nil, nil
	}
	return nil, err
}

// usable returns the pairs that are valid now.
func (p *parsedRow) usable(now time.Time) []candidate {
	if p == nil {
		return nil
	}
	var list []candidate
	for i, pair := range p.pairs {
		if pair.valid(now) == nil {
			list = append(list, candidate{p, i})
		}
	}
	return list
}

// fault says why nothing of the row can be served.
func (p *parsedRow) fault(now time.Time) error {
	if p.err != nil {
		return p.err
	}
	for _, pair := range p.pairs {
		if err := pair.valid(now); err != nil {
			return err
		}
	}
	return nil
}

// fault notes a fault, and logs it when it is new.
func (c *certStore) fault(key certKey, cause error, reason string, now time.Time, serving bool) {
	f := &CertificateFault{Source: key.source, Name: key.name, Cause: cause.Error(), Reason: reason, Since: now, Serving: serving}
	if old, ok := c.faults.get(key); ok {
		if old.Cause == f.Cause && old.Serving == serving {
			return
		}
		f.Since = old.Since
	}
	c.faults.put(key, f)
	c.log.Warn("certificate not in use", "source", key.source, "name", key.name, "cause", f.Cause, "serving_another", serving)
}

func (c *certStore) mended(key certKey) {
	if _, ok := c.faults.get(key); ok {
		c.faults.remove(key)
		c.log.Info("certificate in use again", "source", key.source, "name", key.name)
	}
}

// CertificateFaults lists the certificates that were asked for and found unfit,
// most recently asked first.
func (s *Service) CertificateFaults() []CertificateFault {
	faults := s.certs.faults.all()
	list := make([]CertificateFault, 0, len(faults))
	for _, f := range faults {
		list = append(list, *f)
	}
	return list
}
