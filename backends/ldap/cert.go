package ldap

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"software.sslmate.com/src/go-pkcs12"

	"tabard/internal/sealing"
	"tabard/table"
)

const beginPEM = "-----BEGIN "

// certRow returns chain and key of each entry as PEM, one entry after the other.
func (s *settings) certRow(entries []*ldap.Entry) (table.Row, error) {
	var row table.Row
	for _, e := range entries {
		m, err := s.material(e)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.DN, err)
		}
		if m != nil {
			row = append(row, m.chain(), m.keyText())
		}
	}
	if row == nil {
		return nil, table.ErrNotFound
	}
	return row, nil
}

// caRow returns the trust anchors and revocation lists of all entries as PEM. An
// entry with lists alone says nothing about whom to trust.
func (s *settings) caRow(entries []*ldap.Entry) (table.Row, error) {
	var b strings.Builder
	for _, e := range entries {
		for _, a := range s.caAttrs {
			for _, v := range rawValues(e, a) {
				text, err := authorityPEM([]byte(v))
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", e.DN, a, err)
				}
				b.WriteString(text)
			}
		}
	}
	if b.Len() == 0 {
		return nil, table.ErrNotFound
	}
	return table.Row{b.String()}, nil
}

// authorityPEM returns what a value of an authority's entry holds: certificates or
// a revocation list in DER, or PEM of both, which table.ParseCA judges. Where a
// class demands an attribute that an authority has no use for, people leave its
// value empty.
func authorityPEM(v []byte) (string, error) {
	switch {
	case len(bytes.TrimSpace(v)) == 0:
		return "", nil
	case bytes.Contains(v, []byte(beginPEM)):
		return string(v) + "\n", nil
	}
	certs, err := x509.ParseCertificates(v)
	if err != nil {
		if list, notList := x509.ParseRevocationList(v); notList == nil {
			return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list.Raw})), nil
		}
		return "", err
	}
	var b strings.Builder
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String(), nil
}

// material is what an entry holds for TLS.
type material struct {
	certs []*x509.Certificate
	keys  []*pem.Block
}

// material returns nil for an entry with neither certificate nor key. Its errors
// never quote keys.
func (s *settings) material(e *ldap.Entry) (*material, error) {
	m := &material{}
	for _, a := range s.certAttrs {
		for _, v := range rawValues(e, a) {
			certs, err := certificates([]byte(v))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a, err)
			}
			m.certs = append(m.certs, certs...)
		}
	}
	for _, a := range s.certKeys {
		values := rawValues(e, a)
		for _, v := range values {
			if err := s.addKey(m, []byte(v)); err != nil {
				return nil, fmt.Errorf("%s: %w", a, err)
			}
		}
		if len(values) > 0 {
			break
		}
	}
	switch {
	case len(m.certs) == 0 && len(m.keys) == 0:
		return nil, nil
	case len(m.certs) == 0:
		return nil, fmt.Errorf("no certificate in %s", strings.Join(s.certAttrs, ", "))
	case len(m.keys) == 0:
		return nil, fmt.Errorf("no private key in %s", strings.Join(s.certKeys, ", "))
	}
	return m, nil
}

// certificates reads DER of one or several certificates, or PEM.
func certificates(v []byte) ([]*x509.Certificate, error) {
	if !bytes.Contains(v, []byte(beginPEM)) {
		return x509.ParseCertificates(v)
	}
	var all []*x509.Certificate
	for b, rest := pem.Decode(v); b != nil; b, rest = pem.Decode(rest) {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if all == nil {
		return nil, errors.New("no CERTIFICATE block in PEM")
	}
	return all, nil
}

// addKey reads one value of a key attribute: PKCS#8, PKCS#1 or SEC1 as DER or
// PEM, encrypted PKCS#8, PKCS#12, or file:/path of one of these.
func (s *settings) addKey(m *material, v []byte) error {
	if path, ok := strings.CutPrefix(string(v), "file:"); ok {
		path = strings.TrimSpace(path)
		if !filepath.IsAbs(path) {
			return errors.New("file: needs an absolute path")
		}
		b, err := readFile(path, maxFile)
		if err != nil {
			return err
		}
		v = b
	}
	if !bytes.Contains(v, []byte(beginPEM)) {
		return s.addDER(m, v)
	}
	found := false
	for b, rest := pem.Decode(v); b != nil; b, rest = pem.Decode(rest) {
		if !strings.HasSuffix(b.Type, "PRIVATE KEY") {
			continue
		}
		found = true
		if b.Type != sealing.EncryptedType {
			m.keys = append(m.keys, b)
		} else if err := s.addEncrypted(m, b.Bytes); err != nil {
			return err
		}
	}
	if !found {
		return errors.New("no PRIVATE KEY block in PEM")
	}
	return nil
}

func (s *settings) addDER(m *material, v []byte) error {
	plain := &pem.Block{Type: "PRIVATE KEY", Bytes: v}
	if _, err := table.ParsePrivateKey(plain); err == nil {
		m.keys = append(m.keys, plain)
		return nil
	}
	if isEncrypted(v) {
		return s.addEncrypted(m, v)
	}
	return s.addPKCS12(m, v)
}

// isEncrypted recognises EncryptedPrivateKeyInfo (RFC 5958, 3).
func isEncrypted(der []byte) bool {
	var info struct {
		Algorithm struct {
			ID     asn1.ObjectIdentifier
			Params asn1.RawValue `asn1:"optional"`
		}
		Data []byte
	}
	rest, err := asn1.Unmarshal(der, &info)
	return err == nil && len(rest) == 0
}

// addEncrypted opens encrypted PKCS#8. Without a passphrase it goes on as it is:
// who signs may have one.
func (s *settings) addEncrypted(m *material, der []byte) error {
	if len(s.passphrase) == 0 {
		m.keys = append(m.keys, &pem.Block{Type: sealing.EncryptedType, Bytes: der})
		return nil
	}
	key, err := sealing.Decrypt(&pem.Block{Type: sealing.EncryptedType, Bytes: der}, [][]byte{s.passphrase})
	if err != nil {
		return errors.New("key_passphrase_file does not open the encrypted private key")
	}
	return m.addKey(key)
}

func (s *settings) addPKCS12(m *material, v []byte) error {
	key, leaf, issuers, err := pkcs12.DecodeChain(v, string(s.passphrase))
	if errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption) {
		return errors.New("key_passphrase_file does not open the PKCS#12 value")
	}
	if err != nil {
		return errors.New("neither PKCS#8, PKCS#1, SEC1, PKCS#12, PEM nor file:/path")
	}
	m.certs = append(append(m.certs, leaf), issuers...)
	return m.addKey(key)
}

func (m *material) addKey(key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return errors.New("private key of an unknown kind")
	}
	m.keys = append(m.keys, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return nil
}

func (m *material) keyText() string {
	var b strings.Builder
	for _, k := range m.keys {
		b.Write(pem.EncodeToMemory(k))
	}
	return b.String()
}

// chain returns the certificates as PEM: those of the keys first, each followed
// by its issuers. An attribute's values come in any order, and repeat those of
// PKCS#12.
func (m *material) chain() string {
	var b strings.Builder
	done := make(map[string]bool)
	put := func(c *x509.Certificate) {
		for c != nil && !done[string(c.Raw)] {
			done[string(c.Raw)] = true
			b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
			c = m.issuer(c)
		}
	}
	for _, own := range []bool{true, false} {
		for _, c := range m.certs {
			if own == m.isOwn(c) {
				put(c)
			}
		}
	}
	return b.String()
}

// isOwn reports whether a certificate belongs to one of the keys. Where they
// are encrypted, those that issued no other are taken for it.
func (m *material) isOwn(c *x509.Certificate) bool {
	for _, k := range m.keys {
		signer, err := table.ParsePrivateKey(k)
		if err != nil {
			return !m.issued(c)
		}
		if table.Belongs(signer, c) {
			return true
		}
	}
	return false
}

func (m *material) issued(c *x509.Certificate) bool {
	for _, o := range m.certs {
		if !o.Equal(c) && bytes.Equal(o.RawIssuer, c.RawSubject) {
			return true
		}
	}
	return false
}

func (m *material) issuer(c *x509.Certificate) *x509.Certificate {
	for _, o := range m.certs {
		if !o.Equal(c) && bytes.Equal(c.RawIssuer, o.RawSubject) && c.CheckSignatureFrom(o) == nil {
			return o
		}
	}
	return nil
}
