package ldap

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ldapc "github.com/go-ldap/ldap/v3"
	"github.com/youmark/pkcs8"
	"software.sslmate.com/src/go-pkcs12"

	"tabard/internal/ldaptest"
	"tabard/table"
	"tabard/table/tabletest"
)

const schemaDir = "../../docs/schema"

func der(t testing.TB, text string) string {
	t.Helper()
	b, _ := pem.Decode([]byte(text))
	if b == nil {
		t.Fatal("no PEM")
	}
	return string(b.Bytes)
}

const passphrase = "open sesame"

// keyForms are the ways in which a directory can hold a private key.
func keyForms(t *testing.T, p tabletest.Pair, issuers ...tabletest.Pair) map[string]string {
	t.Helper()
	sealed, err := pkcs8.MarshalPrivateKey(p.Signer, []byte(passphrase), nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := pkcs12.Modern.Encode(p.Signer, p.Leaf, nil, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pemFile, derFile := filepath.Join(dir, "key.pem"), filepath.Join(dir, "key.der")
	overwrite(t, pemFile, p.Key)
	overwrite(t, derFile, string(sealed))
	chain := attr("userCertificate;binary", string(p.Leaf.Raw))
	for _, i := range issuers {
		chain = attr("cACertificate;binary", string(i.Leaf.Raw)) + chain
	}
	sealedPEM := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: sealed}))
	return map[string]string{
		"pkcs8":       chain + attr("pKCS8PrivateKey;binary", der(t, p.Key)),
		"pem":         chain + attr("tabardTLSKey", p.Key),
		"der":         chain + attr("tabardTLSKeyDER", der(t, p.Key)),
		"sealed":      chain + attr("tabardTLSKeyDER", string(sealed)),
		"sealed-pem":  chain + attr("tabardTLSKey", sealedPEM),
		"pkcs12":      chain + attr("userPKCS12", string(store)),
		"file":        chain + attr("tabardTLSKey", "file:"+pemFile),
		"file-sealed": chain + attr("tabardTLSKey", "file:"+derFile),
	}
}

// certEntries makes LDIF of one entry per form.
func certEntries(forms map[string]string) string {
	var b strings.Builder
	for name, lines := range forms {
		b.WriteString("dn: cn=" + name + ",dc=example,dc=org\nobjectClass: device\nobjectClass: tabardTLS\n")
		if strings.Contains(lines, "pKCS8PrivateKey") {
			b.WriteString("objectClass: extensibleObject\n")
		}
		b.WriteString("cn: " + name + "\ntabardTLSName: " + name + ".example.org\n" + lines + "\n")
	}
	return b.String()
}

func TestCertificates(t *testing.T) {
	s, err := ldaptest.New(t.Context(), ldaptest.Options{Schemas: []string{filepath.Join(schemaDir, "tabard.schema")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	root := tabletest.NewPair(t, "Root", "ecdsa", nil)
	leaf := tabletest.NewPair(t, "mx.example.org", "ecdsa", &root)
	other := tabletest.NewPair(t, "other.example.org", "rsa", nil)
	forms := keyForms(t, leaf, root, other)
	forms["bare"] = attr("userCertificate;binary", string(leaf.Leaf.Raw))
	forms["keyonly"] = attr("tabardTLSKey", leaf.Key)
	forms["wrong"] = attr("userCertificate;binary", string(leaf.Leaf.Raw)) + attr("tabardTLSKey", other.Key)
	forms["junk"] = attr("userCertificate;binary", string(leaf.Leaf.Raw)) + attr("tabardTLSKey", "junk-of-a-key")
	forms["nofile"] = attr("userCertificate;binary", string(leaf.Leaf.Raw)) + attr("tabardTLSKey", "file:/nosuch/key")
	forms["neither"] = ""
	load(t, s, certEntries(forms))
	conf := "basedn dc=example,dc=org\ncert_filter (&(objectClass=tabardTLS)(tabardTLSName=%s))\nca_filter (cn=%s)\nkey_passphrase_file "
	tab := openConf(t, s, conf+writeFile(t, passphrase+"\n"))
	typed := table.New("mail", tab, 0)
	for name := range keyForms(t, leaf) {
		pairs, err := typed.KeyPairs(t.Context(), name+".example.org")
		if err != nil || len(pairs) != 1 || !pairs[0].Leaf.Equal(leaf.Leaf) || len(pairs[0].Chain) != 2 {
			t.Errorf("%s: %v, %v", name, pairs, err)
			continue
		}
		row, err := tab.Lookup(t.Context(), table.Cert, name+".example.org")
		if err != nil || len(row) != 2 || der(t, row[0]) != string(leaf.Leaf.Raw) || strings.Contains(row[1], "ENCRYPTED") {
			t.Errorf("%s: the leaf is not first, or the key is sealed: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"bare": "no private key in pKCS8PrivateKey", "keyonly": "no certificate in userCertificate", "wrong": "does not match",
		"junk": "tabardTLSKey: neither PKCS#8", "nofile": "no such file", "neither": "not found", "nobody": "not found",
	} {
		_, err := typed.KeyPairs(t.Context(), name+".example.org")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "junk-of") {
			t.Errorf("%s: %v; want %s", name, err, want)
		}
	}
	anchors, err := typed.Authorities(t.Context(), "pkcs8")
	if err != nil || len(anchors.Anchors) != 2 {
		t.Errorf("anchors: %v, %v", anchors, err)
	}
	wrong := openConf(t, s, conf+writeFile(t, "wrong\n"))
	for _, name := range []string{"sealed", "sealed-pem", "pkcs12"} {
		if _, err := wrong.Lookup(t.Context(), table.Cert, name+".example.org"); err == nil || !strings.Contains(err.Error(), "key_passphrase_file does not open") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without a passphrase an encrypted key goes on as it is.
// An authority's values: what revokes is passed on, whatever form it has.
func TestAuthorityValues(t *testing.T) {
	root := tabletest.NewPair(t, "Root", "ecdsa", nil)
	list := revocations(t, root)
	cert, crl := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Leaf.Raw})),
		string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte(list)}))
	for name, c := range map[string]struct {
		values []string
		want   string // of table.ParseCA
	}{
		"der":        {[]string{string(root.Leaf.Raw), list}, "1 and 1"},
		"pem":        {[]string{cert, crl}, "1 and 1"},
		"one pem":    {[]string{"root\n" + cert + crl}, "1 and 1"},
		"two of der": {[]string{string(root.Leaf.Raw) + string(root.Leaf.Raw)}, "2 and 0"},
		"empty list": {[]string{string(root.Leaf.Raw), "", " "}, "1 and 0"},
		"list alone": {[]string{list}, "no certificate"},
		"junk":       {[]string{string(root.Leaf.Raw), "junk"}, "cACertificate: x509"},
		"a key":      {[]string{cert + root.Key}, "neither a certificate nor a CRL"},
		"no value":   {nil, "not found"},
	} {
		s := &settings{caAttrs: []string{"cACertificate"}}
		row, err := s.caRow([]*ldapc.Entry{ldapc.NewEntry("cn=x", map[string][]string{"cACertificate": c.values})})
		var got string
		if err == nil {
			var a table.Authorities
			if a, err = table.ParseCA(row); err == nil {
				got = fmt.Sprintf("%d and %d", len(a.Anchors), len(a.CRLs))
			}
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestSealedKeyPasses(t *testing.T) {
	s, err := ldaptest.New(t.Context(), ldaptest.Options{Schemas: []string{filepath.Join(schemaDir, "tabard.schema")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	root := tabletest.NewPair(t, "Root", "ecdsa", nil)
	leaf := tabletest.NewPair(t, "mx.example.org", "rsa", &root)
	load(t, s, certEntries(keyForms(t, leaf, root)))
	tab := table.New("mail", openConf(t, s, "basedn dc=example,dc=org\ncert_filter (tabardTLSName=%s)\ncert_key_attributes tabardTLSKeyDER"), 0)
	pairs, err := tab.KeyPairs(t.Context(), "sealed.example.org")
	if err != nil || len(pairs) != 1 || !pairs[0].Leaf.Equal(leaf.Leaf) || !strings.Contains(string(pairs[0].Key), "ENCRYPTED PRIVATE KEY") {
		t.Errorf("%v, %v", pairs, err)
	}
	if _, err := tab.KeyPairs(t.Context(), "pem.example.org"); err == nil || errors.Is(err, table.ErrNotFound) {
		t.Errorf("a key in an attribute that is not asked for: %v", err)
	}
}

// The LDIF form of the schema goes into a running configuration.
func TestSchemaLDIF(t *testing.T) {
	s := directory(t, ldaptest.Options{Global: []string{"database config", "rootdn cn=config", "rootpw " + ldaptest.Password}})
	text, err := os.ReadFile(filepath.Join(schemaDir, "tabard.ldif"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.LoadAs(context.Background(), "cn=config", string(text)); err != nil {
		t.Fatal(err)
	}
	leaf := tabletest.NewPair(t, "mx.example.org", "ecdsa", nil)
	load(t, s, "dn: cn=mx,dc=example,dc=org\nobjectClass: device\nobjectClass: tabardTLS\ncn: mx\ntabardTLSName: mx.example.org\n"+
		attr("userCertificate;binary", string(leaf.Leaf.Raw))+attr("tabardTLSKey", leaf.Key))
	plain, err := os.ReadFile(filepath.Join(schemaDir, "tabard.schema"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tabardTLSName", "tabardTLSKeyDER", "objectidentifier tabard 2.25."} {
		if !strings.Contains(string(plain), name) {
			t.Errorf("tabard.schema lacks %s", name)
		}
	}
	if err := s.Do(func(c *ldapc.Conn) error {
		_, err := c.Compare("cn=mx,dc=example,dc=org", "tabardTLSName", "MX.example.org")
		return err
	}); err != nil {
		t.Error(err)
	}
}
