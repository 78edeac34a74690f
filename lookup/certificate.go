package lookup

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/table"
)

// ErrNoCertificate means that nothing is configured or stored for a name, nor
// for the defaults.
var ErrNoCertificate = errors.New("no certificate")

// wildcard is the name of the certificate that serves when no other does.
const wildcard = "*"

// Certificate implements Inbound and Outbound. The row is read at each call: what
// was inserted or replaced serves the next handshake.
//
// For a server, the first of these that has a usable certificate serves: the
// row of the SNI name, of its *.parent, a `pki` file of that name or with a
// certificate for it; then the defaults: the listener's `pki` files in order,
// the rows of its host name, of the server's, and "*". For a client: its `pki`
// file, the rows of the EHLO name, of the server's name, and "*".
func (s *Service) Certificate(ctx context.Context, r CertificateRequest) (Certificate, error) {
	q, err := s.certQuery(r)
	if err != nil {
		return Certificate{}, err
	}
	for _, find := range []func(context.Context) ([]candidate, error){q.bySNI, q.byDefault} {
		found, err := find(ctx)
		if err != nil {
			return Certificate{}, fmt.Errorf("certificate for %.300q: %w", r.ServerName, err)
		}
		if len(found) > 0 {
			return s.present(choose(found, r.Schemes), q.use, r.Have), nil
		}
	}
	return Certificate{}, q.none()
}

// none says for which names there is no certificate.
func (q certQuery) none() error {
	tried := strings.Join(q.defaults, ", ")
	if q.sni == "" {
		return fmt.Errorf("%w: no row or pki for any of %s", ErrNoCertificate, tried)
	}
	return fmt.Errorf("%w for %.300q, and by default none for any of %s", ErrNoCertificate, q.sni, tried)
}

// present makes the answer for a candidate.
func (s *Service) present(c candidate, use Use, have [32]byte) Certificate {
	kept := s.custody.adopt(c.row)
	pair := kept.pairs[c.i]
	reply := Certificate{Fingerprint: pair.fingerprint, Handle: kept.handle(c.i, use)}
	if have != pair.fingerprint {
		reply.Chain = pair.chain
	}
	return reply
}

// certQuery is one question for a certificate.
type certQuery struct {
	s        *Service
	use      Use
	sni      string
	tables   []config.TableRef
	files    []string // names of pki
	defaults []string // names to ask the tables for when the SNI has nothing
}

func (s *Service) certQuery(r CertificateRequest) (certQuery, error) {
	q := certQuery{s: s, use: UseServer}
	if r.Action != "" {
		a, err := s.action(r.Action)
		if err != nil {
			return q, err
		}
		q.use = UseClient
		q.tables, q.files = refs(a.PKITable), names(a.PKIName)
		q.defaults = names(normalName(r.ServerName), a.Helo, s.hostname, wildcard)
		return q, nil
	}
	l, err := s.listener(r.Listener)
	if err != nil {
		return q, err
	}
	q.sni = normalName(r.ServerName)
	q.tables, q.files = l.PKITables, l.PKINames
	q.defaults = names(l.Hostname, s.hostname, wildcard)
	return q, nil
}

// bySNI asks for the name that the client gave.
func (q certQuery) bySNI(ctx context.Context) ([]candidate, error) {
	for _, name := range table.CertNames(q.sni) {
		if found, err := q.fromTables(ctx, name); len(found) > 0 || err != nil {
			return found, err
		}
		if slices.Contains(q.files, name) {
			if found, err := q.fromFile(ctx, name); len(found) > 0 || err != nil {
				return found, err
			}
		}
	}
	if q.sni == "" {
		return nil, nil
	}
	for _, name := range q.files {
		found, err := q.fromFile(ctx, name)
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(c candidate) bool { return c.pair().leaf.VerifyHostname(q.sni) != nil })
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

// byDefault asks for what serves every client.
func (q certQuery) byDefault(ctx context.Context) ([]candidate, error) {
	for _, name := range q.files {
		if found, err := q.fromFile(ctx, name); len(found) > 0 || err != nil {
			return found, err
		}
	}
	for _, name := range q.defaults {
		if found, err := q.fromTables(ctx, name); len(found) > 0 || err != nil {
			return found, err
		}
	}
	return nil, nil
}

func (q certQuery) fromTables(ctx context.Context, name string) ([]candidate, error) {
	for _, ref := range q.tables {
		t, err := q.s.tables.get(ref)
		if err != nil {
			return nil, err
		}
		from := func(ctx context.Context, name string) (table.Row, error) { return t.Lookup(ctx, table.Cert, name) }
		found, err := q.s.certs.candidates(ctx, certKey{"table " + t.Name(), name}, from, q.s.custody)
		if len(found) > 0 || err != nil {
			return found, err
		}
	}
	return nil, nil
}

func (q certQuery) fromFile(ctx context.Context, name string) ([]candidate, error) {
	from := func(_ context.Context, name string) (table.Row, error) { return q.s.pkiRow(name) }
	return q.s.certs.candidates(ctx, certKey{"pki", name}, from, q.s.custody)
}

// pkiRow reads the files of `pki NAME`.
func (s *Service) pkiRow(name string) (table.Row, error) {
	for _, p := range s.cfg.PKIs {
		if p.Name != name {
			continue
		}
		if p.CertFile == "" {
			return nil, fmt.Errorf("%s: pki %q has no cert file", p.Pos, name)
		}
		return s.certs.files.read(names(p.CertFile, p.KeyFile)...)
	}
	return nil, fmt.Errorf("pki %q: %w", name, errUnknown)
}

// choose picks the best candidate: one that the peer can verify, then by key
// type (ECDSA signs fastest), then the one that became valid last.
func choose(list []candidate, offered []uint16) candidate {
	return slices.MinFunc(list, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(unsupported(a.pair(), offered), unsupported(b.pair(), offered)),
			cmp.Compare(keyRank(a.pair()), keyRank(b.pair())),
			b.pair().leaf.NotBefore.Compare(a.pair().leaf.NotBefore),
		)
	})
}

// unsupported is 1 when the peer offers no scheme that the key can sign with.
func unsupported(k *keyPair, offered []uint16) int {
	if len(offered) == 0 {
		return 0
	}
	for _, scheme := range keySchemes(k) {
		if slices.Contains(offered, uint16(scheme)) {
			return 0
		}
	}
	return 1
}

func keyRank(k *keyPair) int {
	switch k.signer.(type) {
	case *ecdsa.PrivateKey:
		return 0
	case ed25519.PrivateKey:
		return 1
	}
	return 2
}

// keySchemes are the TLS 1.3 signature schemes of a key (RFC 8446 section
// 4.2.3), and for RSA those of TLS 1.2.
func keySchemes(k *keyPair) []tls.SignatureScheme {
	switch key := k.signer.(type) {
	case *ecdsa.PrivateKey:
		switch key.Params().BitSize {
		case 256:
			return []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
		case 384:
			return []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}
		}
		return []tls.SignatureScheme{tls.ECDSAWithP521AndSHA512}
	case ed25519.PrivateKey:
		return []tls.SignatureScheme{tls.Ed25519}
	}
	return []tls.SignatureScheme{
		tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
		tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512,
	}
}

// normalName brings a host name from a peer to the form of keys; what is no
// host name is none at all.
func normalName(name string) string {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > address.MaxDomain || strings.HasPrefix(name, "[") {
		return ""
	}
	ascii, err := address.ToASCII(name)
	if err != nil || address.CheckDomain(ascii) != nil {
		return ""
	}
	return ascii
}

// names returns the names that are not empty, each once.
func names(list ...string) []string {
	var out []string
	for _, n := range list {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func refs(t config.TableRef) []config.TableRef {
	if t == "" {
		return nil
	}
	return []config.TableRef{t}
}
