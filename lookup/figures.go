package lookup

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"tabard/internal/address"
	"tabard/internal/rpc"
	"tabard/table"
)

// Meter is what metrics ask of lookup. There is nothing in it that is worth
// stealing: no key of a row but the names of certificates, and no value.
type Meter interface {
	// Figures tells how the tables do, and of the certificates that were asked for.
	// No source is asked for it.
	Figures(ctx context.Context) (Figures, error)
}

// Figures are what Meter tells.
type Figures struct {
	Tables       []TableInfo
	Certificates []CertificateFigure // those that end first, at most MaxCertificates
	Known        int                 // how many there are without that bound
	Faults       []FaultFigure       // most recently asked for first, at most MaxCertificates
}

// MaxCertificates bounds each list of Figures: a table may have 100,000 names, and
// whoever stores metrics keeps each for years.
const MaxCertificates = 500

// CertificateFigure is when a certificate in use ends, or when the last one did.
type CertificateFigure struct {
	Source   string // "table mail" or "pki"
	Name     string // that it is looked up by
	Key      string // kind of key: "ecdsa P-256"
	NotAfter time.Time
}

// FaultFigure is a certificate that is not used.
type FaultFigure struct {
	Source, Name string
	Reason       string // one of FaultReasons
	Serving      bool   // another one of the name is served meanwhile
}

var _ Meter = (*Service)(nil)

// Figures implements Meter.
func (s *Service) Figures(ctx context.Context) (Figures, error) {
	tables, err := s.Tables(ctx)
	if err != nil {
		return Figures{}, err
	}
	f := Figures{Tables: tables}
	now := s.clock()
	for _, good := range s.certs.good.all() {
		f.Certificates = append(f.Certificates, endings(good, now)...)
	}
	f.Known = len(f.Certificates)
	slices.SortStableFunc(f.Certificates, func(a, b CertificateFigure) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Name, b.Name))
	})
	f.Certificates = slices.Clip(f.Certificates[:min(len(f.Certificates), MaxCertificates)])
	for _, c := range s.CertificateFaults() {
		if len(f.Faults) < MaxCertificates {
			f.Faults = append(f.Faults, FaultFigure{Source: c.Source, Name: address.OneLine(c.Name, maxFault), Reason: c.Reason, Serving: c.Serving})
		}
	}
	return f, nil
}

// endings tells when the certificates of a name end that are in use, or when those
// did that were last: who is warned of an end wants to see it, too.
func endings(good goodCert, now time.Time) []CertificateFigure {
	served := good.row.usable(now)
	if len(served) == 0 {
		served = allOf(good.row)
	}
	var all []CertificateFigure
	for _, c := range served {
		if !displaced(c, served) {
			leaf := c.pair().leaf
			all = append(all, CertificateFigure{Source: good.key.source, Name: good.key.name, Key: KeyName(leaf), NotAfter: leaf.NotAfter})
		}
	}
	return all
}

// The reasons why a certificate is not in use. Where a verdict would have the same
// one it has the same word.
const (
	FaultUnreadable  = "unreadable"   // no PEM of certificate and key, or a key that cannot be opened
	FaultMismatch    = "key-mismatch" // the private key is not that of the certificate
	FaultUnavailable = "unavailable"  // the table, or a file that the row names, cannot be read
)

// FaultReasons returns every reason of a FaultFigure.
func FaultReasons() []string {
	return []string{ReasonExpired, ReasonNotYetValid, ReasonWeakKey, ReasonUnsupportedKey, FaultMismatch, FaultUnavailable, FaultUnreadable}
}

// unfit is why a certificate or its key cannot be served.
type unfit struct {
	reason string // of FaultReasons
	text   string
}

// Error implements error.
func (u *unfit) Error() string { return u.text }

// faultReason finds the word for a cause.
func faultReason(cause error) string {
	var u *unfit
	var path *fs.PathError
	switch {
	case errors.As(cause, &u):
		return u.reason
	case errors.Is(cause, table.ErrMismatch):
		return FaultMismatch
	case errors.As(cause, &path):
		return FaultUnavailable
	}
	return FaultUnreadable
}

const nameMeter = "LookupMeter"

// RegisterMeter serves what metrics may ask.
func RegisterMeter(s *rpc.Server, m Meter) error { return s.Register(nameMeter, &meterEdge{m}) }

// NewMeter returns the Meter behind a connection with RegisterMeter.
func NewMeter(c rpc.Caller) Meter { return remoteMeter{c} }

type meterEdge struct{ m Meter }

// Figures serves Meter.Figures.
func (e *meterEdge) Figures(c *rpc.Call[rpc.None], r *rpc.Reply[Figures]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) (Figures, error) { return e.m.Figures(ctx) })
}

type remoteMeter struct{ c rpc.Caller }

// Figures implements Meter.
func (r remoteMeter) Figures(ctx context.Context) (Figures, error) {
	return rpc.Invoke[rpc.None, Figures](ctx, r.c, nameMeter+".Figures", rpc.None{})
}
