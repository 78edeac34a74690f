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
	system *trust
	parsed *lru[[32]byte, *trust]
	files  *pemFiles
}

// newAnchors loads the system's trust anchors, unless others are given. With an
// error, there are none.
func newAnchors(system *x509.CertPool) (*anchors, error) {
	var err error
	if system == nil {
		if system, err = x509.SystemCertPool(); err != nil {
			system = x509.NewCertPool()
		}
	}
	return &anchors{system: &trust{pool: system}, parsed: newLRU[[32]byte, *trust](maxPools), files: newPEMFiles()}, err
}

// trust returns what a ca row says.
func (a *anchors) trust(row table.Row) (*trust, error) {
	sum := rowSum(row, 0)
	if t, ok := a.parsed.get(sum); ok {
		return t, nil
	}
	authorities, err := table.ParseCA(row)
	if err != nil {
		return nil, err
	}
	return a.parsed.getOrPut(sum, newTrust(authorities)), nil
}

// authorities returns the trust anchors in force for a request: those of `ca
// NAME`'s file; the first row that `ca <table>` has (for a server: of its name,
// of *.parent, of "*"; for a client: of our own name, of "*"); or the system's.
// A server without a row is the world's, and the system's anchors judge it. A
// client without one is not: whom we let in is never decided by a missing row.
func (s *Service) authorities(ctx context.Context, r VerifyRequest, name string) (*trust, error) {
	caName, ref, err := s.caOf(r)
	if err != nil {
		return nil, err
	}
	switch {
	case caName != "":
		return s.caFile(caName)
	case ref != "":
		t, err := s.caTable(ctx, ref, s.caKeys(r, name))
		if errors.Is(err, table.ErrNotFound) {
			return s.withoutRow(r.Use), nil
		}
		return t, err
	}
	return s.anchors.system, nil
}

func (s *Service) withoutRow(use Use) *trust {
	if use == UseServer {
		return s.anchors.system
	}
	return &trust{pool: x509.NewCertPool()}
}

// caKeys returns the names of the rows to try.
func (s *Service) caKeys(r VerifyRequest, name string) []string {
	if r.Use == UseServer {
		return names(append(table.CertNames(name), wildcard)...)
	}
	own := ""
	if l, err := s.listener(r.Listener); err == nil {
		own = l.Hostname
	}
	return names(own, s.hostname, wildcard)
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

func (s *Service) caFile(name string) (*trust, error) {
	for _, c := range s.cfg.CAs {
		if c.Name != name {
			continue
		}
		row, err := s.anchors.files.read(c.CertFile)
		if err != nil {
			return nil, fmt.Errorf("%s: ca %q: %w", c.Pos, name, err)
		}
		t, err := s.anchors.trust(row)
		if err != nil {
			return nil, fmt.Errorf("%s: ca %q: %w", c.Pos, name, err)
		}
		return t, nil
	}
	return nil, fmt.Errorf("ca %q: %w", name, errUnknown)
}

// caTable returns the anchors in the first row that a table has for one of the
// names; an error that wraps table.ErrNotFound when it has none.
func (s *Service) caTable(ctx context.Context, ref config.TableRef, keys []string) (*trust, error) {
	t, err := s.tables.get(ref)
	if err != nil {
		return nil, err
	}
	key, row, err := t.First(ctx, table.CA, keys)
	if err != nil {
		return nil, err
	}
	anchors, err := s.anchors.trust(row)
	if err != nil {
		return nil, fmt.Errorf("table %s: ca %q: %w", t.Name(), key, err)
	}
	return anchors, nil
}
