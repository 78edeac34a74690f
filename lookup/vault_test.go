package lookup

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"

	"tabard/internal/sealing"
	"tabard/table"
)

// custodyFiles are the files that open keys, in a directory.
type custodyFiles struct {
	t    *testing.T
	dir  string
	ring *sealing.Ring
	n    int
}

func newCustodyFiles(t *testing.T) *custodyFiles {
	c := &custodyFiles{t: t, dir: t.TempDir()}
	c.rotate()
	c.write("passphrases", "first\nopen sesame\n")
	return c
}

func (c *custodyFiles) path(name string) string { return filepath.Join(c.dir, name) }

// write replaces a file, as a rename does.
func (c *custodyFiles) write(name, text string) {
	c.t.Helper()
	c.n++
	at := time.Now().Add(time.Duration(c.n) * time.Second) // whatever the clock's grain is
	for _, err := range []error{
		os.WriteFile(c.path(name+".new"), []byte(text), 0o600), os.Chtimes(c.path(name+".new"), at, at), os.Rename(c.path(name+".new"), c.path(name)),
	} {
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// rotate puts a new key in front of the file.
func (c *custodyFiles) rotate() {
	c.t.Helper()
	var err error
	if c.ring, err = c.ring.WithNewKey(); err != nil {
		c.t.Fatal(err)
	}
	c.write("master", string(c.ring.Text()))
}

// seal returns the sealed form of a PEM key.
func (c *custodyFiles) seal(key, chain string) string {
	c.t.Helper()
	b, _ := pem.Decode([]byte(key))
	leaf, err := x509.ParseCertificate(ders(chain)[0])
	if err != nil {
		c.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(c.ring.Seal(b.Bytes, leaf.RawSubjectPublicKeyInfo)))
}

func (c *custodyFiles) encrypt(key, passphrase string) string {
	c.t.Helper()
	b, _ := pem.Decode([]byte(key))
	signer, err := table.ParsePrivateKey(b)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := pkcs8.MarshalPrivateKey(signer, []byte(passphrase), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: sealing.EncryptedType, Bytes: der}))
}

const vaultConf = `
table certs sqlite:/mem/certs
custody master-key "%[1]s/master"
custody passphrases "%[1]s/passphrases"
listen on 127.0.0.1 port 25 tls pki <certs>
action "out" relay
match from any for any action "out"
`

// opened says by which certificate a name is served, and that its key signs.
func opened(t *testing.T, s *Service, name string) (*x509.Certificate, error) {
	t.Helper()
	c, err := s.Certificate(t.Context(), CertificateRequest{ServerName: name})
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	r := SignRequest{Handle: c.Handle, Digest: digest[:], Hash: crypto.SHA256}
	sig, err := s.Sign(t.Context(), r)
	if err != nil {
		return nil, err
	}
	if pub, ok := leaf.PublicKey.(*ecdsa.PublicKey); ok && !ecdsa.VerifyASN1(pub, digest[:], sig) {
		t.Errorf("%s: bad signature", name)
	}
	return leaf, nil
}

// Keys may be sealed, encrypted, or in a file that the row names.
func TestProtectedKeys(t *testing.T) {
	files, f, ca := newCustodyFiles(t), newFixture(t), newAuthority(t, "CA", nil)
	s := f.service(fmt.Sprintf(vaultConf, files.dir))
	certs := f.table("certs")
	rows := map[string]func(name string) table.Row{
		"sealed": func(name string) table.Row {
			c, k := ca.server("ecdsa", nil, name)
			return table.Row{c, files.seal(k, c)}
		},
		"sealed rsa": func(name string) table.Row {
			c, k := ca.server("rsa", nil, name)
			return table.Row{c + files.seal(k, c)}
		},
		"encrypted": func(name string) table.Row {
			c, k := ca.server("ecdsa", nil, name)
			return table.Row{c, files.encrypt(k, "open sesame")}
		},
		"two sealed": func(name string) table.Row {
			c, k := ca.server("ecdsa", nil, name)
			d, l := ca.server("rsa", nil, name)
			return table.Row{d + c, files.seal(k, c) + files.seal(l, d)}
		},
		"file": func(name string) table.Row {
			c, k := ca.server("ecdsa", nil, name)
			files.write("x.key", k)
			return table.Row{c, "file:" + files.path("x.key")}
		},
		"sealed in a file": func(name string) table.Row {
			c, k := ca.server("ecdsa", nil, name)
			files.write("y.key", files.seal(k, c))
			return table.Row{c, " file: " + files.path("y.key") + "\n"}
		},
	}
	for kind, row := range rows {
		name := strings.ReplaceAll(kind, " ", "-") + ".example"
		certs.set(table.Cert, name, row(name)...)
		if leaf, err := opened(t, s, name); err != nil || leaf.DNSNames[0] != name {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if faults := s.CertificateFaults(); len(faults) != 0 {
		t.Errorf("faults %+v", faults)
	}
}

// What cannot be opened is a fault that says why, and never displaces what works.
func TestProtectedKeysThatCannotBeOpened(t *testing.T) {
	files, f, ca := newCustodyFiles(t), newFixture(t), newAuthority(t, "CA", nil)
	s := f.service(fmt.Sprintf(vaultConf, files.dir))
	certs := f.table("certs")
	const name = "mx.example"
	chain, key := ca.server("ecdsa", nil, name)
	certs.set(table.Cert, name, chain, key)
	good, err := opened(t, s, name)
	if err != nil {
		t.Fatal(err)
	}
	other := newCustodyFiles(t)
	next, nextKey := ca.server("ecdsa", nil, name)
	changed := files.seal(nextKey, next)
	for what, c := range map[string]struct{ key, want string }{
		"another master key": {other.seal(nextKey, next), "is not in the file"},
		"changed":            {strings.Replace(changed, "Public-Key: ", "Public-Key: 0", 1), "does not match any certificate"},
		"another's":          {files.seal(key, chain), "does not match any certificate"},
		"lies":               {files.seal(key, next), "does not belong to the certificate"},
		"passphrase":         {files.encrypt(nextKey, "another"), "none of 2 passphrases opens it"},
		"RFC 1421":           {"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", "RFC 1421"},
		"no file":            {"file:/no/such/file", "no such file"},
		"relative":           {"file:key.pem", "absolute path"},
		"directory":          {"file:" + files.dir, "not a regular file"},
		"not a key":          {"file:" + files.path("passphrases"), "neither PEM nor"},
	} {
		certs.set(table.Cert, name, next, c.key)
		certs.tell(table.Cert, name)
		if leaf, err := opened(t, s, name); err != nil || !leaf.Equal(good) {
			t.Errorf("%s: not the one before: %v", what, err)
		}
		faults := s.CertificateFaults()
		if len(faults) != 1 || !strings.Contains(faults[0].Cause, c.want) || !faults[0].Serving || strings.Contains(faults[0].Cause, "sesame") {
			t.Errorf("%s: faults %+v; want %q", what, faults, c.want)
		}
	}
}

// A master key that comes later, or is rotated, counts without a restart.
func TestMasterKeyChanges(t *testing.T) {
	files, f, ca := newCustodyFiles(t), newFixture(t), newAuthority(t, "CA", nil)
	text := fmt.Sprintf(vaultConf, files.dir)
	if err := os.Remove(files.path("master")); err != nil {
		t.Fatal(err)
	}
	s := f.service(text)
	certs := f.table("certs")
	chain, key := ca.server("ecdsa", nil, "mx.example")
	certs.set(table.Cert, "mx.example", chain, files.seal(key, chain))
	if _, err := opened(t, s, "mx.example"); err == nil {
		t.Fatal("opened without the master key")
	}
	files.write("master", string(files.ring.Text()))
	if _, err := opened(t, s, "mx.example"); err != nil {
		t.Errorf("after the file came: %v", err)
	}
	files.rotate()
	later, laterKey := ca.server("ecdsa", nil, "later.example")
	certs.set(table.Cert, "later.example", later, files.seal(laterKey, later))
	for _, name := range []string{"mx.example", "later.example"} {
		if _, err := opened(t, s, name); err != nil {
			t.Errorf("%s after the rotation: %v", name, err)
		}
	}
	// A broken file leaves the keys in force that were read before.
	files.write("master", "nonsense\n")
	third, thirdKey := ca.server("ecdsa", nil, "third.example")
	certs.set(table.Cert, "third.example", third, files.seal(thirdKey, third))
	if _, err := opened(t, s, "third.example"); err != nil {
		t.Errorf("with a broken file: %v", err)
	}
	if faults := s.custody.vault.faults(); len(faults) != 1 || !strings.Contains(faults[0].fault.Error(), "master: line 1: not 32 bytes") {
		t.Errorf("faults: %v", faults)
	}
	if found := s.Check(t.Context()); len(found) != 2 || !strings.HasPrefix(found[0].String(), "test.conf:3:1: custody master-key: ") {
		t.Errorf("check: %v", found)
	}
}

// Nothing of a key is left in what it was kept in.
func TestWipe(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	words := append([]*big.Int{r.D, r.Precomputed.Dp}, r.Primes...)
	wipe(r)
	for i, w := range words {
		for _, word := range w.Bits() {
			if word != 0 {
				t.Fatalf("RSA: word left in number %d", i)
			}
		}
	}
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if wipe(e); !bytes.Equal(e, make([]byte, len(e))) {
		t.Error("Ed25519")
	}
}
