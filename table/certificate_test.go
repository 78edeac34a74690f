package table_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tabard/table"
	"tabard/table/tabletest"
)

func TestParseKeyPairs(t *testing.T) {
	root := tabletest.NewPair(t, "Root", "ecdsa", nil)
	leaf, rsa, ed := tabletest.NewPair(t, "mx.example", "ecdsa", &root), tabletest.NewPair(t, "mx.example", "rsa", &root), tabletest.NewPair(t, "mx.example", "ed25519", &root)
	b64 := base64.StdEncoding.EncodeToString([]byte(leaf.Key + leaf.Chain))
	for name, tt := range map[string]struct {
		row    table.Row
		leaves []*x509.Certificate
		chain  int
	}{
		"chain and key":      {table.Row{leaf.Chain + root.Chain, leaf.Key}, []*x509.Certificate{leaf.Leaf}, 2},
		"issuer first":       {table.Row{root.Chain + leaf.Chain, leaf.Key}, []*x509.Certificate{leaf.Leaf}, 2},
		"one column":         {table.Row{leaf.Key + leaf.Chain}, []*x509.Certificate{leaf.Leaf}, 1},
		"key column first":   {table.Row{leaf.Key, leaf.Chain}, []*x509.Certificate{leaf.Leaf}, 1},
		"empty key column":   {table.Row{leaf.Chain + leaf.Key, ""}, []*x509.Certificate{leaf.Leaf}, 1},
		"base64":             {table.Row{b64}, []*x509.Certificate{leaf.Leaf}, 1},
		"base64 in lines":    {table.Row{b64[:80] + "\n " + b64[80:]}, []*x509.Certificate{leaf.Leaf}, 1},
		"text around":        {table.Row{"subject=mx\n" + leaf.Chain + "\nthe key:\n" + leaf.Key}, []*x509.Certificate{leaf.Leaf}, 1},
		"CRLF":               {table.Row{strings.ReplaceAll(leaf.Chain+leaf.Key, "\n", "\r\n")}, []*x509.Certificate{leaf.Leaf}, 1},
		"two kinds":          {table.Row{leaf.Chain, leaf.Key, rsa.Chain, rsa.Key}, []*x509.Certificate{leaf.Leaf, rsa.Leaf}, 1},
		"three kinds, mixed": {table.Row{ed.Chain + rsa.Chain + leaf.Chain, leaf.Key + rsa.Key + ed.Key}, []*x509.Certificate{leaf.Leaf, rsa.Leaf, ed.Leaf}, 1},
		"foreign issuer":     {table.Row{leaf.Chain + tabletest.NewPair(t, "Other", "ecdsa", nil).Chain, leaf.Key}, []*x509.Certificate{leaf.Leaf}, 1},
		"same name, foreign": {table.Row{leaf.Chain + tabletest.NewPair(t, "Root", "ecdsa", nil).Chain, leaf.Key}, []*x509.Certificate{leaf.Leaf}, 1},
	} {
		pairs, err := table.ParseKeyPairs(tt.row)
		if err != nil || len(pairs) != len(tt.leaves) {
			t.Errorf("%s: %v, %v", name, pairs, err)
			continue
		}
		for i, p := range pairs {
			if !p.Leaf.Equal(tt.leaves[i]) || string(p.Chain[0]) != string(p.Leaf.Raw) || len(p.Chain) != tt.chain {
				t.Errorf("%s: pair %d is of another certificate, or has a chain of %d", name, i, len(p.Chain))
			}
			if s := fmt.Sprintf("%v %+v %#v", p, p, p); strings.Contains(s, "PRIVATE") || len(s) > 1000 {
				t.Errorf("%s: printing tells the key", name)
			}
		}
	}
}

func TestParsePrivateKeyForms(t *testing.T) {
	rsa, ec := tabletest.NewPair(t, "a.example", "rsa", nil), tabletest.NewPair(t, "a.example", "ecdsa", nil)
	for _, p := range []tabletest.Pair{rsa, ec} {
		block, _ := pem.Decode([]byte(p.Key))
		key, err := table.ParsePrivateKey(block)
		if err != nil {
			t.Fatal(err)
		}
		for label, der := range otherForms(t, key) {
			text := string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
			if _, err := table.ParseKeyPairs(table.Row{p.Chain, "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + text}); err != nil {
				t.Errorf("%s: %v", label, err)
			}
		}
	}
}

func TestParseKeyPairsRefuses(t *testing.T) {
	a, b := tabletest.NewPair(t, "a.example", "ecdsa", nil), tabletest.NewPair(t, "b.example", "ecdsa", nil)
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("opaque")}))
	for want, row := range map[string]table.Row{
		"no CERTIFICATE":              {a.Key},
		"no PRIVATE KEY":              {a.Chain},
		"does not match":              {a.Chain, b.Key},
		"key 2: does not match":       {a.Chain, a.Key + b.Key},
		"neither PEM nor base64":      {"garbage"},
		"column 2: neither":           {a.Chain, "garbage"},
		"1 of 2 PEM blocks":           {a.Chain + "-----BEGIN PRIVATE KEY-----\nxx\n"},
		"certificate 1":               {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), a.Key},
		"not PKCS#8, PKCS#1 or SEC1":  {a.Chain, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))},
		"is encrypted, and there are": {a.Chain, a.Key + encrypted},
		"longer than":                 {strings.Repeat("x", 5<<20)},
	} {
		if _, err := table.ParseKeyPairs(row); !errors.Is(err, table.ErrCert) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	if pairs, err := table.ParseKeyPairs(table.Row{b.Chain, encrypted}); err != nil || string(pairs[0].Key) != encrypted {
		t.Errorf("a sole encrypted key: %v, %v", pairs, err)
	}
	if _, err := table.ParseKeyPairs(nil); err == nil {
		t.Error("an answer of nothing accepted")
	}
}

func TestParseCA(t *testing.T) {
	a, b := tabletest.NewPair(t, "A", "ecdsa", nil), tabletest.NewPair(t, "B", "rsa", nil)
	for _, row := range []table.Row{{a.Chain + b.Chain}, {a.Chain, b.Chain}, {base64.StdEncoding.EncodeToString([]byte("# A and B\n" + a.Chain + b.Chain))}} {
		if got, err := table.ParseCA(row); err != nil || len(got.Anchors) != 2 || !got.Anchors[1].Equal(b.Leaf) {
			t.Errorf("%d anchors, %v", len(got.Anchors), err)
		}
	}
	for _, bad := range []table.Row{nil, {""}, {"x"}, {a.Chain + a.Key}, {strings.Replace(a.Chain, "END", "XND", 1)}} {
		if _, err := table.ParseCA(bad); err == nil {
			t.Errorf("%.60q accepted", bad)
		}
	}
	if got := table.PublicPEM(a.Key + a.Chain); got != a.Chain {
		t.Errorf("public part = %q", got)
	}
}

func FuzzParseKeyPairs(f *testing.F) {
	p := tabletest.NewPair(f, "a.example", "ed25519", nil)
	f.Add(p.Chain, p.Key)
	f.Add(p.Key+p.Chain, "")
	f.Add(base64.StdEncoding.EncodeToString([]byte(p.Key+p.Chain)), "")
	f.Fuzz(func(t *testing.T, a, b string) {
		pairs, err := table.ParseKeyPairs(table.Row{a, b})
		for _, p := range pairs {
			if err != nil || len(p.Chain) == 0 || p.Leaf == nil || len(p.Key) == 0 {
				t.Fatalf("pair %v without a part, %v", p, err)
			}
		}
		table.ParseCA(table.Row{a, b})
		table.PublicPEM(a)
	})
}
