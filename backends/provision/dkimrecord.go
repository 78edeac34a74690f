package provision

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
)

// DKIMRecord is the TXT record of DNS by which others verify what a key has signed
// (RFC 6376 section 3.6).
type DKIMRecord struct {
	Domain   string   `json:"domain"`
	Selector string   `json:"selector"`
	Name     string   `json:"name"` // where it is published, without a final dot
	Value    string   `json:"value"`
	Strings  []string `json:"strings"` // the value, in pieces of at most 255 bytes
}

// maxString is what one string of a TXT record holds (RFC 1035 section 3.3).
const maxString = 255

// DKIMKind names the kind of a public key that verifies mail, and its size in bits.
func DKIMKind(public crypto.PublicKey) (kind string, bits int, err error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return DKIMRSA, k.N.BitLen(), nil
	case ed25519.PublicKey:
		return DKIMEd25519, 8 * len(k), nil
	}
	return "", 0, fmt.Errorf("a key of type %T verifies no mail", public)
}

// NewDKIMRecord returns the record of a key that signs as selector of domain.
func NewDKIMRecord(domain, selector string, public crypto.PublicKey) (DKIMRecord, error) {
	domain, selector, err := DKIMNames(domain, selector)
	if err != nil {
		return DKIMRecord{}, err
	}
	kind, _, err := DKIMKind(public)
	if err != nil {
		return DKIMRecord{}, err
	}
	raw, ed := public.(ed25519.PublicKey) // as it is: RFC 8463 section 4.2
	if !ed {
		if raw, err = x509.MarshalPKIXPublicKey(public); err != nil {
			return DKIMRecord{}, err
		}
	}
	r := DKIMRecord{Domain: domain, Selector: selector, Name: dkimName(domain, selector)}
	r.Value = "v=DKIM1; k=" + kind + "; p=" + base64.StdEncoding.EncodeToString(raw)
	for rest := r.Value; rest != ""; {
		n := min(len(rest), maxString)
		r.Strings, rest = append(r.Strings, rest[:n]), rest[n:]
	}
	return r, nil
}

// String returns the record as a zone file has it (RFC 1035 section 5.1). No
// character of it needs a backslash.
func (r DKIMRecord) String() string {
	if len(r.Strings) == 1 {
		return fmt.Sprintf("%s. IN TXT %q", r.Name, r.Value)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s. IN TXT (", r.Name)
	for _, s := range r.Strings {
		fmt.Fprintf(&b, "\n\t%q", s)
	}
	b.WriteString(" )")
	return b.String()
}
