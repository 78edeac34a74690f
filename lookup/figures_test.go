package lookup

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/table"
)

// figures asks over a connection, as metrics do.
func figures(t *testing.T, s *Service) Figures {
	t.Helper()
	near, far := net.Pipe()
	srv := rpc.NewServer()
	if err := RegisterMeter(srv, s); err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(t.Context(), far) }()
	c := rpc.NewClient(near)
	defer func() { _ = c.Close() }()
	f, err := NewMeter(c).Figures(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFigures(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.clock = func() time.Time { return now }
	s := f.service(certConf)
	ca := newAuthority(t, "CA", nil)
	ending := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = now.Add(d).Truncate(time.Second) }
	}
	certs := f.table("certs")
	put := func(name, kind string, left time.Duration) {
		chain, key := ca.server(kind, ending(left), name)
		certs.set(table.Cert, name, chain, key)
		served(t, s, CertificateRequest{ServerName: name})
	}
	put("later.example", "rsa", 20*day)
	chain, key := ca.server("rsa", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-2*day), now.Add(day/2) }, "later.example")
	next, nextKey := ca.server("rsa", ending(20*day), "later.example")
	certs.set(table.Cert, "later.example", chain, key, next, nextKey) // the first one has a successor
	served(t, s, CertificateRequest{ServerName: "later.example"})
	put("soon.example", "ecdsa", day)
	put("broken.example", "ecdsa", 30*day)
	certs.set(table.Cert, "broken.example", "junk", "")
	served(t, s, CertificateRequest{ServerName: "broken.example"})
	got := figures(t, s)
	names := []string{}
	for _, c := range got.Certificates {
		names = append(names, fmt.Sprintf("%s %s %s %d", c.Source, c.Name, c.Key, c.NotAfter.Sub(now).Round(day)/day))
	}
	want := []string{"table certs soon.example ecdsa P-256 1", "table certs later.example rsa 2048 20", "table certs broken.example ecdsa P-256 30"}
	if !slices.Equal(names, want) || got.Known != 3 {
		t.Errorf("%q of %d, want %q", names, got.Known, want)
	}
	if !slices.Equal(got.Faults, []FaultFigure{{"table certs", "broken.example", FaultUnreadable, true}}) {
		t.Errorf("faults: %+v", got.Faults)
	}
	if len(got.Tables) == 0 || got.Tables[0].Name != "certs" || got.Tables[0].Questions == 0 {
		t.Errorf("tables: %+v", got.Tables)
	}
	// What has ended stays in sight until something else is served.
	now = now.Add(2 * day)
	certs.set(table.Cert, "*", "junk", "")
	_, err := s.Certificate(context.Background(), CertificateRequest{ServerName: "soon.example"})
	got = figures(t, s)
	if !errors.Is(err, ErrNoCertificate) || got.Certificates[0].Name != "soon.example" || !got.Certificates[0].NotAfter.Before(now) {
		t.Errorf("%v, %+v", err, got.Certificates)
	}
	if !slices.Contains(got.Faults, FaultFigure{"table certs", "soon.example", ReasonExpired, false}) {
		t.Errorf("faults: %+v", got.Faults)
	}
}

// However many names are asked for, what metrics show is bounded, and is what
// ends first.
func TestFiguresAreBounded(t *testing.T) {
	f := newFixture(t)
	s := f.service(certConf)
	ca := newAuthority(t, "CA", nil)
	chain, key := ca.server("ecdsa", nil, "many.example")
	row := s.custody.open(table.Row{chain, key})
	first, firstKey := ca.server("ecdsa", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(day) }, "first.example")
	for i := range 2 * MaxCertificates {
		k := certKey{"table certs", fmt.Sprintf("n%d.example", i)}
		s.certs.good.put(k, goodCert{key: k, row: row})
		s.certs.fault(k, errors.New("cut"), FaultUnreadable, time.Now(), true)
	}
	last := certKey{"table certs", "z.example"}
	s.certs.good.put(last, goodCert{key: last, row: s.custody.open(table.Row{first, firstKey})})
	got := figures(t, s)
	if len(got.Certificates) != MaxCertificates || len(got.Faults) != MaxCertificates || got.Known != 2*MaxCertificates+1 || got.Certificates[0].Name != "z.example" {
		t.Errorf("%d certificates, %d faults, %d known, first %+v", len(got.Certificates), len(got.Faults), got.Known, got.Certificates[0])
	}
}

// Every reason has one place in the vocabulary.
func TestFaultReasonsAreWords(t *testing.T) {
	for _, err := range []error{errors.New("x"), table.ErrMismatch, &unfit{ReasonExpired, "x"}} {
		if !slices.Contains(FaultReasons(), faultReason(err)) {
			t.Errorf("%v: %s", err, faultReason(err))
		}
	}
}
