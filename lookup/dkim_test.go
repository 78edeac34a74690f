package lookup

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tabard/table"
)

const dkimConf = `
table keys sqlite:/mem/keys
custody master-key "%[1]s/master"
custody passphrases "%[1]s/passphrases"
listen on 127.0.0.1 port 25 tls pki <keys>
action "out" relay dkim <keys>
action "plain" relay
match from any for any action "out"
`

// signsMail says which domains and selectors sign for an author, after a signature
// of each was checked.
func signsMail(t *testing.T, s *Service, author string) string {
	t.Helper()
	keys, err := s.DKIM(t.Context(), DKIMRequest{Action: "out", Domain: author})
	if err != nil {
		return err.Error()
	}
	var out []string
	digest := sha256.Sum256([]byte("a header"))
	for _, k := range keys {
		signer, err := DKIMSigner(t.Context(), s, k)
		if err != nil {
			t.Fatal(err)
		}
		good, hash := false, crypto.SHA256
		if _, ed := signer.Public().(ed25519.PublicKey); ed {
			hash = 0
		}
		sig, err := signer.Sign(nil, digest[:], hash)
		if err != nil {
			t.Fatal(err)
		}
		switch p := signer.Public().(type) {
		case *rsa.PublicKey:
			good = rsa.VerifyPKCS1v15(p, crypto.SHA256, digest[:], sig) == nil
		case ed25519.PublicKey:
			good = ed25519.Verify(p, digest[:], sig)
		}
		if !good {
			t.Errorf("%s %s: bad signature", k.Domain, k.Selector)
		}
		out = append(out, k.Selector+"@"+k.Domain)
	}
	return strings.Join(out, " ")
}

// While the table is down, keys that are known sign; that there was none before is
// not enough to send unsigned.
func TestDKIMTableDown(t *testing.T) {
	f := newFixture(t)
	s := f.service(fmt.Sprintf(dkimConf, newCustodyFiles(t).dir))
	keys := f.table("keys")
	_, ed := newAuthority(t, "CA", nil).server("ed25519", nil, "x.example")
	keys.set(table.DKIM, "example.org", "s1", ed)
	if got := signsMail(t, s, "a.example.org") + signsMail(t, s, "example.net"); got != "s1@example.org" {
		t.Fatal(got)
	}
	keys.fail(errDown)
	if got := signsMail(t, s, "a.example.org"); got != "s1@example.org" {
		t.Errorf("known: %s", got)
	}
	for author, want := range map[string]string{"example.net": errUnsure.Error(), "new.example": "connection refused"} {
		if got := signsMail(t, s, author); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want an error with %q", author, got, want)
		}
	}
}

// Keys that sign mail are found for the author's domain or one above it, however
// they are kept.
func TestDKIMKeys(t *testing.T) {
	files, f, ca := newCustodyFiles(t), newFixture(t), newAuthority(t, "CA", nil)
	s := f.service(fmt.Sprintf(dkimConf, files.dir))
	keys := f.table("keys")
	chain, ed := ca.server("ed25519", nil, "x.example")
	rsaChain, rsaKey := ca.server("rsa", nil, "x.example")
	_, ec := ca.server("ecdsa", nil, "x.example")
	files.write("a.key", rsaKey)
	for domain, row := range map[string]table.Row{
		"example.org":        {"s1", ed, "S2", rsaKey},
		"sub.example.net":    {"one", ed},
		"sealed.example":     {"s", files.seal(ed, chain), "t", files.seal(rsaKey, rsaChain)},
		"encrypted.example":  {"s", files.encrypt(rsaKey, "open sesame")},
		"file.example":       {"s", "file:" + files.path("a.key")},
		"column.example":     {"s:file:" + files.path("a.key")},
		"xn--bcher-kva.test": {"s", ed},
		"ecdsa.example":      {"s", ec},
		"half.example":       {"s", ed, "t", "nonsense"},
		"nofile.example":     {"s", "file:/no/such/file"},
		"org":                {"s", ed},
	} {
		keys.set(table.DKIM, domain, row...)
	}
	for author, want := range map[string]string{
		"example.org": "s1@example.org s2@example.org", "EXAMPLE.org.": "s1@example.org s2@example.org",
		"a.b.example.org": "s1@example.org s2@example.org", "a.b.c.d.e.example.org": "", "example.net": "",
		"sub.example.net": "one@sub.example.net", "sealed.example": "s@sealed.example t@sealed.example",
		"encrypted.example": "s@encrypted.example", "file.example": "s@file.example", "column.example": "s@column.example",
		"bücher.test": "s@xn--bcher-kva.test", "other.org": "", "": "", "127.0.0.1": "", "a b.example.org": "", strings.Repeat("a.", 5000): "",
	} {
		if got := signsMail(t, s, author); got != want {
			t.Errorf("%.40s: %q, want %q", author, got, want)
		}
	}
	for author, want := range map[string]string{
		"ecdsa.example": "an ECDSA key cannot sign mail", "half.example": `selector "t"`, "nofile.example": "no such file",
	} {
		if got := signsMail(t, s, author); !strings.Contains(got, want) || !strings.HasPrefix(got, "table keys: dkim ") {
			t.Errorf("%s: %q, want an error with %q", author, got, want)
		}
	}
	if got, err := s.DKIM(t.Context(), DKIMRequest{Action: "plain", Domain: "example.org"}); len(got) != 0 || err != nil {
		t.Errorf("an action without dkim: %v, %v", got, err)
	}
	files.write("a.key", ed)
	if k, _ := s.DKIM(t.Context(), DKIMRequest{Action: "out", Domain: "file.example"}); len(k) != 1 || !bytes.Equal(k[0].Public, publicOf(t, ed)) {
		t.Error("the key of a file that changed is not the new one")
	}
	keys.fail(errors.New("down"))
	if got := signsMail(t, s, "later.example"); !strings.Contains(got, "down") {
		t.Errorf("with the table down: %q", got)
	}
}

func publicOf(t *testing.T, key string) []byte {
	t.Helper()
	b, _ := pem.Decode([]byte(key))
	signer, err := table.ParsePrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A handle for mail signs nothing else, and no other handle is one for mail.
func TestDKIMHandles(t *testing.T) {
	files, f, ca := newCustodyFiles(t), newFixture(t), newAuthority(t, "CA", nil)
	s := f.service(fmt.Sprintf(dkimConf, files.dir))
	digest := sha256.Sum256([]byte("x"))
	for _, kind := range []string{"rsa", "ed25519"} {
		chain, key := ca.server(kind, nil, "mx.example.org")
		f.table("keys").set(table.DKIM, "example.org", "s", key)
		f.table("keys").set(table.Cert, "*", chain, key)
		all, err := s.DKIM(t.Context(), DKIMRequest{Action: "out", Domain: "example.org"})
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		tls13 := []byte(strings.Repeat(" ", 64) + "TLS 1.3, server CertificateVerify\x00" + strings.Repeat("h", 32))
		for _, r := range []SignRequest{
			{Digest: digest[:], Hash: crypto.SHA256, PSS: true}, {Digest: make([]byte, 48), Hash: crypto.SHA384},
			{Digest: digest[:20], Hash: crypto.SHA1}, {Digest: digest[:31], Hash: crypto.SHA256}, {Digest: tls13}, {},
			{Digest: digest[:], Hash: map[string]crypto.Hash{"rsa": 0, "ed25519": crypto.SHA256}[kind]},
		} {
			r.Handle = all[0].Handle
			if _, err := s.Sign(t.Context(), r); !errors.Is(err, ErrSign) {
				t.Errorf("%s: signed %+v: %v", kind, r, err)
			}
		}
		// smtpd has no use for it, and mta none for a server's.
		server, err := s.Certificate(t.Context(), CertificateRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if err := checkHandle(all[0].Handle, UseServer); err == nil {
			t.Error("smtpd may sign mail")
		}
		if err := checkHandle(server.Handle, UseClient, UseDKIM); err == nil {
			t.Error("mta may sign as the server")
		}
	}
}
