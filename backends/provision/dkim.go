package provision

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"tabard/internal/address"
	"tabard/internal/sealing"
	"tabard/table"
)

// DKIMKey is a row of dkim_keys, without the private key.
type DKIMKey struct {
	Domain   string
	Selector string
	Kept     string           // how the private key is kept, see Protection
	Public   crypto.PublicKey // nil with a fault
	Fault    error            // why nothing can be signed with the row
}

// Of reports whether the key is one of a domain, and of a selector unless that is
// empty.
func (k DKIMKey) Of(domain, selector string) bool {
	same := func(have, want string) bool {
		ascii, err := dkimLabels(strings.TrimSuffix(strings.TrimSpace(want), "."))
		return table.Fold(have) == table.Fold(want) || err == nil && table.Fold(have) == ascii
	}
	return same(k.Domain, domain) && (selector == "" || same(k.Selector, selector))
}

// The kinds of keys that sign mail.
const (
	DKIMRSA     = "rsa"     // RFC 6376
	DKIMEd25519 = "ed25519" // RFC 8463: many verifiers know nothing of it yet
)

// The sizes of new RSA keys in bits: verifiers must take no others (RFC 8301
// section 3.2).
const (
	minNewRSA = 1024
	maxNewRSA = 4096
)

// NewDKIMKey makes a private key of a kind, as PEM of PKCS#8. bits is the size of
// an RSA key, from 1024 to 4096.
func NewDKIMKey(kind string, bits int) (string, error) {
	var key crypto.Signer
	var err error
	switch {
	case kind == DKIMEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case kind != DKIMRSA:
		err = fmt.Errorf("unknown kind of key %q; want rsa or ed25519", kind)
	case bits < minNewRSA || bits > maxNewRSA:
		err = fmt.Errorf("RSA key of %d bits; want %d to %d, which every verifier takes", bits, minNewRSA, maxNewRSA)
	default:
		key, err = rsa.GenerateKey(rand.Reader, bits)
	}
	if err != nil {
		return "", err
	}
	return pkcs8PEM(key)
}

func pkcs8PEM(key crypto.Signer) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	defer clear(der)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// SetDKIMKey adds or replaces the key that a selector of a domain signs with: PEM,
// base64 of PEM or of its DER, or file:/path. It tells whether there was one. What
// is neither sealed nor encrypted is looked at before it is stored.
func (d *DB) SetDKIMKey(ctx context.Context, domain, selector, key string) (replaced bool, err error) {
	r, err := dkimRow{domain, selector, key}.normal()
	if err != nil {
		return false, err
	}
	err = d.inTx(ctx, func(tx tx) error {
		done, err := tx.exec(ctx, `UPDATE dkim_keys SET key = ?3 WHERE {domain} = ?1 AND {selector} = ?2`, r.domain, r.selector, r.key)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		if replaced = n > 0; err != nil || replaced {
			return err
		}
		_, err = tx.exec(ctx, `INSERT INTO dkim_keys (domain, selector, key) VALUES (?, ?, ?)
ON CONFLICT ({domain}, {selector}) DO UPDATE SET key = excluded.key`, r.domain, r.selector, r.key)
		return err
	})
	return replaced, explain(r.String(), err)
}

// dkimRow is a row of dkim_keys with its secret.
type dkimRow struct{ domain, selector, key string }

// String keeps the key out of messages.
func (r dkimRow) String() string { return "dkim key " + dkimName(r.domain, r.selector) }

// dkimName is where the public key is in DNS (RFC 6376 section 3.6.2.1).
func dkimName(domain, selector string) string { return selector + "._domainkey." + domain }

// normal returns the row as it is stored.
func (r dkimRow) normal() (dkimRow, error) {
	var err error
	if r.domain, r.selector, err = DKIMNames(r.domain, r.selector); err != nil {
		return r, err
	}
	if r.key, err = dkimText(r.selector, r.key); err != nil {
		return r, fmt.Errorf("domain %s: %w", r.domain, err)
	}
	return r, nil
}

// DKIMNames returns domain and selector in the form in which they are looked up and
// published: in lower case, and in A-labels. Errors say what is wrong with them.
func DKIMNames(domain, selector string) (d, s string, err error) {
	if d, err = dkimLabels(strings.TrimSuffix(strings.TrimSpace(domain), ".")); err != nil {
		return "", "", fmt.Errorf("domain %.300q: %w", domain, err)
	}
	if s, err = dkimLabels(strings.TrimSpace(selector)); err != nil {
		return "", "", fmt.Errorf("selector %.300q: %w", selector, err)
	}
	if len(s) > maxSelector {
		return "", "", fmt.Errorf("selector %.300q: longer than %d characters", selector, maxSelector)
	}
	if n := len(dkimName(d, s)); n > maxDNSName {
		return "", "", fmt.Errorf("domain %s: %s is no name for DNS: %d characters", d, dkimName(d, s), n)
	}
	return d, s, nil
}

const (
	maxSelector = 63  // of the schema
	maxDNSName  = 253 // RFC 1035 section 2.3.4, without the dot of the root
)

func dkimLabels(name string) (string, error) {
	if name == "" || strings.HasPrefix(name, "[") {
		return "", errors.New("not made of labels")
	}
	ascii, err := address.ToASCII(name)
	if err == nil {
		err = address.CheckDomain(ascii)
	}
	return ascii, err
}

// dkimText checks a key, and returns the text that is stored for it: only the key,
// whatever stood around it.
func dkimText(selector, text string) (string, error) {
	keys, err := table.ParseDKIM(table.Row{selector, text})
	if err != nil {
		return "", err
	}
	switch k := keys[0]; {
	case k.File != "":
		return "file:" + k.File, errors.Join(plainText(k.File, 0), checkDKIMFile(k.File))
	case k.Block != nil:
		return string(pem.EncodeToMemory(k.Block)), nil
	default:
		return pkcs8PEM(k.Key)
	}
}

func checkDKIMFile(path string) error {
	text, err := table.ReadPEMFile(path)
	if err != nil {
		return err
	}
	b, err := table.KeyBlock(text)
	if err == nil && b.Type != sealing.BlockType && b.Type != sealing.EncryptedType {
		_, err = table.Opener{}.OpenDKIM(b)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// RemoveDKIMKey removes the key of a selector.
func (d *DB) RemoveDKIMKey(ctx context.Context, domain, selector string) error {
	remove := func(domain, selector string) error {
		return d.change(ctx, "dkim key "+dkimName(domain, selector), `DELETE FROM dkim_keys WHERE {domain} = ? AND {selector} = ?`, domain, selector)
	}
	if domain, selector, err := DKIMNames(domain, selector); err == nil {
		if err := remove(domain, selector); !errors.Is(err, ErrNone) {
			return err
		}
	}
	// What SQL put there may have a name that is none.
	return remove(table.Fold(domain), table.Fold(selector))
}

// ListDKIMKeys returns every key, by domain and selector. open returns the public
// key of an answer, or why nothing can be signed with it: such rows are
// listed all the same.
func (d *DB) ListDKIMKeys(ctx context.Context, open func(table.Row) ([]crypto.PublicKey, error)) ([]DKIMKey, error) {
	rows, err := list(ctx, d, selectDKIM, scanDKIM)
	all := make([]DKIMKey, 0, len(rows))
	for _, r := range rows {
		all = append(all, r.listed(open))
	}
	return all, err
}

const selectDKIM = `SELECT domain, selector, key FROM dkim_keys ORDER BY domain, selector`

func scanDKIM(scan func(...any) error) (r dkimRow, err error) {
	err = scan(&r.domain, &r.selector, &r.key)
	return r, err
}

// listed is the row without its secret.
func (r dkimRow) listed(open func(table.Row) ([]crypto.PublicKey, error)) DKIMKey {
	k := DKIMKey{Domain: r.domain, Selector: r.selector, Kept: r.kept()}
	domain, selector, err := DKIMNames(r.domain, r.selector)
	switch {
	case err != nil:
	case domain != table.Fold(r.domain):
		err = fmt.Errorf("domain %.300q: is looked up as %s", r.domain, domain)
	case selector != table.Fold(r.selector):
		err = fmt.Errorf("selector %.300q: is published as %s", r.selector, selector)
	default:
		var public []crypto.PublicKey
		if public, err = open(table.Row{r.selector, r.key}); err == nil {
			k.Public = public[0]
		}
	}
	k.Fault = err
	return k
}

// kept says how the key is kept, whether the row can be used or not.
func (r dkimRow) kept() string {
	if _, ok := table.KeyFile(r.key); ok {
		return KeptFile
	}
	b, err := table.KeyBlock(r.key)
	switch {
	case err != nil:
		return KeptNone
	case b.Type == sealing.BlockType:
		return KeptSealed
	case b.Type == sealing.EncryptedType:
		return KeptEncrypted
	}
	return KeptPlain
}

// DKIMKeys are keys that sign mail: in the line, or in a file that it names, relative
// to the directory of the imported file.
func DKIMKeys() Kind {
	return Kind{
		Name: "dkim key", Columns: []string{"domain", "selector", "key", "key_file"}, Needs: []string{"domain", "selector"}, Seals: true,
		table: "dkim_keys", group: "domain", unique: []string{"domain", "selector"}, taken: []string{"domain", "selector"},
		folded: []string{"domain", "selector"}, update: true,
		plan: func(h heading) (plan, error) {
			if !h.has("key") && !h.has("key_file") {
				return plan{}, errors.New("the heading must have key or key_file")
			}
			return plan{stored: []string{"domain", "selector", "key"}, row: dkimFields}, nil
		},
	}
}

func dkimFields(f fields) ([]any, error) {
	r := dkimRow{f.get("domain"), f.get("selector"), f.raw("key")}
	if file := f.get("key_file"); file != "" {
		if r.key != "" {
			return nil, fmt.Errorf("%s: both key and key_file", r)
		}
		var err error
		if r.key, err = f.file(file); err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
	}
	r, err := r.normal()
	if err == nil && f.seal != nil {
		if r.key, err = f.seal.SealDKIM(r.key); err != nil {
			err = fmt.Errorf("%s: %w", r, err)
		}
	}
	return []any{r.domain, r.selector, r.key}, err
}

// SealDKIM returns the key of a dkim answer sealed under the first master key. A key
// in another file stays there.
func (s Sealer) SealDKIM(text string) (string, error) {
	if _, ok := table.KeyFile(text); ok {
		return text, nil
	}
	b, err := table.KeyBlock(text)
	if err == nil {
		b, err = s.block(b, func(key crypto.Signer) ([]byte, error) { return x509.MarshalPKIXPublicKey(key.Public()) })
	}
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(b)), nil
}
