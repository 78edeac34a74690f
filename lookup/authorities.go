package lookup

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"tabard/internal/config"
	"tabard/table"
)

// maxPools bounds how many sets of trust anchors are kept parsed.
const maxPools = 256

// anchors holds the system's trust anchors and those parsed from rows, by
// content.
type anchors struct {
	system *x509.CertPool
	parsed *lru[[32]byte, *x509.CertPool]
	files  *pemFiles
}

// newAnchors loads the system's trust anchors, unless others are given. With an
// error, there are none.
func newAnchors(system *x509.CertPool) (*anchors, error) {
	a := &anchors{system: system, parsed: newLRU[[32]byte, *x509.CertPool](maxPools), files: newPEMFiles()}
	var err error
	if a.system == nil {
		if a.system, err = x509.SystemCertPool(); err != nil {
			a.system = x509.NewCertPool()
		}
	}
	return a, err
}

// pool returns the certificates in a ca row, at least one.
func (a *anchors) pool(row table.Row) (*x509.CertPool, error) {
	sum := rowSum(row)
	if p, ok := a.parsed.get(sum); ok {
		return p, nil
	}
	certs, err := table.ParseCA(row)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return a.parsed.getOrPut(sum, p), nil
}

// authorities returns the trust anchors in force for a request: those of `ca
// NAME`'s file; the first row that `ca <table>` has (for a server: of its name,
// of *.parent; then, for both: of our own name, of "*"); or the system's.
func (s *Service) authorities(ctx context.Context, r VerifyRequest, name string) (*x509.CertPool, error) {
	caName, ref, err := s.caOf(r)
	if err != nil {
		return nil, err
	}
	switch {
	case caName != "":
		return s.caFile(caName)
	case ref != "":
		return s.caTable(ctx, ref, s.caKeys(r, name))
	}
	return s.anchors.system, nil
}

// caKeys returns the names of the rows to try.
func (s *Service) caKeys(r VerifyRequest, name string) []string {
	own := ""
	if l, err := s.listener(r.Listener); err == nil && r.Use == UseClient {
		own = l.Hostname
	}
	return names(append(table.CertNames(name), own, s.hostname, wildcard)...)
}

// caOf returns the ca options of the listener or action of a request.
func (s *Service) caOf(r VerifyRequest) (string, config.TableRef, error) {
	if r.Use == UseClient {
		l, err := s.listener(r.Listener)
		if err != nil {
			return "", "", err
		}
		return l.CAName, l.CATable, nil
	}
	if r.Action == "" {
		return "", s.cfg.DefaultCA, nil // a bounce, relayed by MX
	}
	a, err := s.action(r.Action)
	if err != nil {
		return "", "", err
	}
	return a.CAName, a.CATable, nil
}

func (s *Service) caFile(name string) (*x509.CertPool, error) {
	for _, c := range s.cfg.CAs {
		if c.Name != name {
			continue
		}
		row, err := s.anchors.files.read(c.CertFile)
		if err != nil {
			return nil, fmt.Errorf("%s: ca %q: %w", c.Pos, name, err)
		}
		p, err := s.anchors.pool(row)
		if err != nil {
			return nil, fmt.Errorf("%s: ca %q: %w", c.Pos, name, err)
		}
		return p, nil
	}
	return nil, fmt.Errorf("ca %q: %w", name, errUnknown)
}

// caTable returns the anchors of a table; none when it has no row for any of
// the names, so that nothing verifies.
func (s *Service) caTable(ctx context.Context, ref config.TableRef, keys []string) (*x509.CertPool, error) {
	t, err := s.tables.get(ref)
	if err != nil {
		return nil, err
	}
	key, row, err := t.First(ctx, table.CA, keys)
	if errors.Is(err, table.ErrNotFound) {
		return x509.NewCertPool(), nil
	}
	if err != nil {
		return nil, err
	}
	p, err := s.anchors.pool(row)
	if err != nil {
		return nil, fmt.Errorf("table %s: ca %q: %w", t.Name(), key, err)
	}
	return p, nil
}
