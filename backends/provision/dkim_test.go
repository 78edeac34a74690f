package provision

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/youmark/pkcs8"

	"tabard/internal/sealing"
	"tabard/table"
	"tabard/table/tabletest"
)

// opens is what a server with these master keys and passphrases can sign with.
func opens(o table.Opener) func(table.Row) ([]crypto.PublicKey, error) {
	return func(row table.Row) ([]crypto.PublicKey, error) {
		keys, err := table.ParseDKIM(row)
		if err != nil {
			return nil, err
		}
		k := keys[0]
		if k.File != "" {
			text, err := table.ReadPEMFile(k.File)
			if err != nil {
				return nil, err
			}
			k.Key, err = o.ReadDKIM(text)
			if err != nil {
				return nil, err
			}
		}
		if k.Block != nil {
			if k.Key, err = o.OpenDKIM(k.Block); err != nil {
				return nil, err
			}
		}
		return []crypto.PublicKey{k.Key.Public()}, nil
	}
}

// listed says domain, selector, kind and how it is kept of every key.
func listed(t *testing.T, d *DB, o table.Opener) string {
	t.Helper()
	all, err := d.ListDKIMKeys(t.Context(), opens(o))
	must(t, err)
	var out []string
	for _, k := range all {
		kind, bits, _ := DKIMKind(k.Public)
		line := fmt.Sprintf("%s@%s %s%d %s", k.Selector, k.Domain, kind, bits, k.Kept)
		if k.Fault != nil {
			line = fmt.Sprintf("%s@%s %s: %v", k.Selector, k.Domain, k.Kept, k.Fault)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func edKey(t *testing.T) string {
	t.Helper()
	key, err := NewDKIMKey(DKIMEd25519, 0)
	must(t, err)
	return key
}

func testDKIM(t *testing.T, opened opener) {
	ctx := t.Context()
	d, tab, _ := opened(t)
	ed := edKey(t)
	set := func(domain, selector, key string) bool {
		t.Helper()
		replaced, err := d.SetDKIMKey(ctx, domain, selector, key)
		must(t, err)
		return replaced
	}
	rsaPair := tabletest.NewPair(t, "x", "rsa", nil)
	if set("Bücher.Example.", "S1", edKey(t)) || !set("xn--bcher-kva.example", "s1", "junk around\n"+ed+"junk") || set("bücher.example", "s2.eu", rsaPair.Key) {
		t.Error("what was replaced is not told")
	}
	if row, err := tab.Lookup(ctx, table.DKIM, "xn--bcher-kva.example"); err != nil || len(row) != 4 || row[0] != "s1" || row[1] != ed || row[2] != "s2.eu" {
		t.Errorf("served: %q, %v", row, err)
	}
	file := filepath.Join(t.TempDir(), "a.key")
	must(t, os.WriteFile(file, []byte(ed), 0o600))
	set("a.example", "f", " file:"+file)
	want := "f@a.example ed25519256 file\ns1@xn--bcher-kva.example ed25519256 plain\ns2.eu@xn--bcher-kva.example rsa2048 plain"
	if got := listed(t, d, table.Opener{}); got != want {
		t.Errorf("list:\n%s\nwant:\n%s", got, want)
	}
	is(t, d.RemoveDKIMKey(ctx, "Bücher.example", "s3"), ErrNone)
	must(t, d.RemoveDKIMKey(ctx, "Bücher.example", "S1"), d.RemoveDKIMKey(ctx, "bücher.example.", "s2.eu"))
	// Names that only SQL can have put there are faults, and can be removed.
	for _, q := range []string{`('Bücher.example', 's')`, `('a.example', '-s')`} {
		_, err := d.db.ExecContext(ctx, `INSERT INTO dkim_keys (key, domain, selector) VALUES ('x', `+q[1:])
		must(t, err)
	}
	got := listed(t, d, table.Opener{})
	for _, want := range []string{`-s@a.example none: selector "-s": `, `s@Bücher.example none: domain "Bücher.example": is looked up as xn--bcher-kva.example`} {
		if !strings.Contains(got, want) {
			t.Errorf("list lacks %q:\n%s", want, got)
		}
	}
	must(t, d.RemoveDKIMKey(ctx, "a.example", "-s"), d.RemoveDKIMKey(ctx, "Bücher.example", "s"))
}

func testDKIMRefuses(t *testing.T, opened opener) {
	d, _, _ := opened(t)
	ed, ec := edKey(t), tabletest.NewPair(t, "x", "ecdsa", nil).Key
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "ec"), []byte(ec), 0o600))
	long := strings.Repeat("a", 63) + "."
	for _, c := range []struct{ domain, selector, key, want string }{
		{"", "s", ed, "domain"},
		{"*.example", "s", ed, "domain"},
		{"[192.0.2.1]", "s", ed, "domain"},
		{"a..example", "s", ed, "domain"},
		{"a.example", "", ed, "selector"},
		{"a.example", "s:t", ed, "selector"},
		{"a.example", "[192.0.2.1]", ed, "selector"},
		{"a.example", "a b", ed, "selector"},
		{"a.example", long + "b", ed, "longer than 63"},
		{long + long + long + "example", strings.Repeat("s", 60), ed, "no name for DNS"},
		{"a.example", "s", "", "no PRIVATE KEY"},
		{"a.example", "s", ec, "ECDSA"},
		{"a.example", "s", "secret", "neither PEM nor base64"},
		{"a.example", "s", "file:relative", "absolute"},
		{"a.example", "s", "file:" + dir + "/none", "no such file"},
		{"a.example", "s", "file:" + dir + "/ec", dir + "/ec: an ECDSA key"},
	} {
		_, err := d.SetDKIMKey(t.Context(), c.domain, c.selector, c.key)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s, %s: %v; want %q", c.domain, c.selector, err, c.want)
		}
	}
	if got := listed(t, d, table.Opener{}); got != "" {
		t.Errorf("stored: %s", got)
	}
}

func TestNewDKIMKeyRefuses(t *testing.T) {
	for kind, bits := range map[string]int{"ecdsa": 256, DKIMRSA: 1023, "rsa ": 2048} {
		if _, err := NewDKIMKey(kind, bits); err == nil {
			t.Errorf("%s of %d bits was made", kind, bits)
		}
	}
	if _, err := NewDKIMKey(DKIMRSA, 4097); err == nil {
		t.Error("an RSA key was made that verifiers need not take")
	}
}

// A record parses as what a zone file holds, and has the key's public part.
func TestDKIMRecord(t *testing.T) {
	for _, kind := range []string{DKIMRSA, DKIMEd25519} {
		text, err := NewDKIMKey(kind, 2048)
		must(t, err)
		key, err := table.Opener{}.ReadDKIM(text)
		must(t, err)
		r, err := NewDKIMRecord("Bücher.example", "S1", key.Public())
		must(t, err)
		parsed, err := dns.NewRR(r.String())
		must(t, err)
		txt, ok := parsed.(*dns.TXT)
		if !ok || txt.Hdr.Name != "s1._domainkey.xn--bcher-kva.example." || len(txt.Txt) != len(r.Strings) {
			t.Fatalf("%s\n%v", r, parsed)
		}
		for _, s := range txt.Txt {
			if len(s) > 255 {
				t.Errorf("a string of %d bytes", len(s))
			}
		}
		value, ok := strings.CutPrefix(strings.Join(txt.Txt, ""), "v=DKIM1; k="+kind+"; p=")
		raw, err := base64.StdEncoding.DecodeString(value)
		if !ok || err != nil {
			t.Fatalf("%s: %v", r.Value, err)
		}
		same := false
		switch p := key.Public().(type) {
		case ed25519.PublicKey:
			same = p.Equal(ed25519.PublicKey(raw))
		case *rsa.PublicKey:
			other, err := x509.ParsePKIXPublicKey(raw)
			same = err == nil && p.Equal(other)
		}
		if !same {
			t.Errorf("%s: another public key in %s", kind, r)
		}
	}
}

// dkimRings are master keys: the old one, and a new one in front of it.
func dkimRings(t *testing.T) (old, both *sealing.Ring) {
	t.Helper()
	old, err := old.WithNewKey()
	must(t, err)
	both, err = old.WithNewKey()
	must(t, err)
	return old, both
}

// protected says how the key behind a name is kept, and by how many master keys.
func protected(t *testing.T, d *DB) map[string]string {
	t.Helper()
	all, err := d.Protections(t.Context())
	must(t, err)
	out := make(map[string]string)
	for _, p := range all {
		out[p.Service+" "+p.Name] = strings.TrimSpace(p.Kept + " " + strings.Join(p.MasterKeys, ","))
		if p.Unknown != nil {
			out[p.Service+" "+p.Name] = p.Unknown.Error()
		}
	}
	return out
}

// storeKept stores keys of a.example in every way that they can be kept, and a
// certificate, and returns the file that one of them is in.
func storeKept(t *testing.T, d *DB, old Sealer) (file string) {
	t.Helper()
	seal := func(key string) string {
		text, err := old.SealDKIM(key)
		must(t, err)
		return text
	}
	ed := edKey(t)
	key, err := table.Opener{}.ReadDKIM(ed)
	must(t, err)
	der, err := pkcs8.MarshalPrivateKey(key, []byte("sesame"), &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 1000, HMACHash: crypto.SHA256}})
	must(t, err)
	file = filepath.Join(t.TempDir(), "sealed.key")
	must(t, os.WriteFile(file, []byte(seal(ed)), 0o600))
	for selector, key := range map[string]string{
		"sealed": seal(ed), "rsa": seal(tabletest.NewPair(t, "x", "rsa", nil).Key), "plain": ed, "file": "file:" + file,
		"encrypted": string(pem.EncodeToMemory(&pem.Block{Type: sealing.EncryptedType, Bytes: der})),
	} {
		_, err := d.SetDKIMKey(t.Context(), "a.example", selector, key)
		must(t, err)
	}
	// With -bad nobody can sign as it is, but its key is worth keeping.
	for selector, key := range map[string]string{"-bad": seal(ed), "broken": "nothing"} {
		_, err := d.db.ExecContext(t.Context(), d.d.text(`INSERT INTO dkim_keys (domain, selector, key) VALUES ('a.example', ?, ?)`), selector, key)
		must(t, err)
	}
	pair := tabletest.NewPair(t, "mx.example", "ecdsa", nil)
	cert, err := old.Seal(Pair{pair.Chain, pair.Key})
	must(t, err, d.SetCertificates(t.Context(), "mx.example", cert))
	return file
}

// testDKIMSeal seals keys anew. No master key that a row needs is missing in
// Protections, and none is taken for granted.
func testDKIMSeal(t *testing.T, opened opener) {
	ctx := t.Context()
	d, _, _ := opened(t)
	old, both := dkimRings(t)
	file := storeKept(t, d, Sealer{table.Opener{Ring: old}})
	was, now := old.IDs()[0], both.IDs()[0]
	expect := func(want map[string]string) {
		t.Helper()
		got := protected(t, d)
		for name, how := range want {
			if got[name] != how {
				t.Errorf("%s: %q; want %q", name, got[name], how)
			}
		}
	}
	name := func(selector string) string { return "dkim " + selector + "._domainkey.a.example" }
	expect(map[string]string{
		name("sealed"): "sealed " + was, name("rsa"): "sealed " + was, name("-bad"): "sealed " + was, name("file"): "file " + was,
		name("plain"): "plain", name("encrypted"): "encrypted", name("broken"): "none", "cert mx.example": "sealed " + was,
	})
	if done, err := d.Reseal(ctx, Sealer{table.Opener{Ring: both}}, false); err != nil || done != (Resealed{Sealed: 4, Left: 4}) {
		t.Errorf("reseal: %+v, %v", done, err)
	}
	expect(map[string]string{
		name("sealed"): "sealed " + now, name("rsa"): "sealed " + now, name("-bad"): "sealed " + now, name("file"): "file " + was,
		name("plain"): "plain", name("encrypted"): "encrypted", "cert mx.example": "sealed " + now,
	})
	all := Sealer{table.Opener{Ring: both, Passphrases: [][]byte{[]byte("sesame")}}}
	if done, err := d.Reseal(ctx, all, true); err != nil || done != (Resealed{Sealed: 6, Left: 2}) {
		t.Errorf("all: %+v, %v", done, err)
	}
	expect(map[string]string{name("plain"): "sealed " + now, name("encrypted"): "sealed " + now, name("broken"): "none"})
	if got := listed(t, d, table.Opener{Ring: both}); strings.Count(got, "ed25519256 sealed") != 3 || !strings.Contains(got, "rsa@a.example rsa2048 sealed") {
		t.Errorf("after all:\n%s", got)
	}
	must(t, os.Remove(file))
	if got := protected(t, d)[name("file")]; !strings.Contains(got, "no such file") {
		t.Errorf("a file that cannot be read: %q", got)
	}
	// With other master keys, nothing is changed.
	other, newer := dkimRings(t)
	before := protected(t, d)
	must(t, d.RemoveCertificates(ctx, "mx.example"))
	if _, err := d.SetDKIMKey(ctx, "0.example", "plain", edKey(t)); err != nil {
		t.Fatal(err)
	}
	for _, ring := range []*sealing.Ring{other, newer} {
		if done, err := d.Reseal(ctx, Sealer{table.Opener{Ring: ring}}, true); err == nil || done != (Resealed{}) || !strings.Contains(err.Error(), "_domainkey.a.example") || !errors.Is(err, sealing.ErrSealed) {
			t.Errorf("unknown master key: %+v, %v", done, err)
		}
	}
	delete(before, "cert mx.example")
	before["dkim plain._domainkey.0.example"] = "plain"
	expect(before)
}

func testImportDKIM(t *testing.T, opened opener) {
	d, _, _ := opened(t)
	dir := t.TempDir()
	ed, other := edKey(t), edKey(t)
	ec := tabletest.NewPair(t, "x", "ecdsa", nil).Key
	for name, text := range map[string]string{"s1.private": ed, "ec": ec} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	o := ImportOptions{Dir: dir}
	file := "domain,selector,key,key_file\nBücher.example,S1,,s1.private\nb.example,s1,\"" + ed + "\",\n"
	if done, bad, err := imports(t, d, DKIMKeys(), file, o); err != nil || done != (counts{Added: 2}) {
		t.Fatalf("%+v, %q, %v", done, bad, err)
	}
	const bad = "selector,domain,key_file,key\ns1,B.example,s1.private,\ns2,b.example,ec,\n,b.example,s1.private,\ns3,b.example,s1.private,x\ns4,b.example,none,\nS5,c.example,s1.private,\ns5,C.example,s1.private,\n"
	_, told, err := imports(t, d, DKIMKeys(), bad, o)
	lines := strings.Split(told, "\n")
	for i, want := range []string{"2: exists already", `3: domain b.example: dkim: selector "s2": an ECDSA key`, `4: selector ""`, "5: dkim key s3._domainkey.b.example: both key and key_file",
		"6: dkim key s4._domainkey.b.example: open", "8: the same domain and selector as in line 7"} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Fatalf("line %d of\n%s\nwant %q", i, told, want)
		}
	}
	is(t, err, ErrBadLines)
	old, _ := dkimRings(t)
	o.Existing, o.Seal = ReplaceExisting, &Sealer{table.Opener{Ring: old}}
	if done, bad, err := imports(t, d, DKIMKeys(), "domain,selector,key\nB.example,S1,\""+other+"\"\n", o); err != nil || done != (counts{Replaced: 1}) {
		t.Errorf("replace: %+v, %q, %v", done, bad, err)
	}
	if got := listed(t, d, table.Opener{Ring: old}); got != "s1@b.example ed25519256 sealed\ns1@xn--bcher-kva.example ed25519256 plain" {
		t.Errorf("list:\n%s", got)
	}
	if _, _, err := imports(t, d, DKIMKeys(), "domain,selector\n", o); err == nil || !strings.Contains(err.Error(), "key or key_file") {
		t.Errorf("no key: %v", err)
	}
}
