package selfca

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"
)

func TestIssueVerifies(t *testing.T) {
	now := time.Now()
	ca, err := New("test authority", now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("authority's PEM holds no certificate")
	}
	for _, kt := range []KeyType{"", ECDSA, RSA, Ed25519} {
		chain, key, err := ca.Issue(Request{Names: []string{"mx.example", "127.0.0.1"}, Key: kt, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil {
			t.Fatalf("%s: %v", kt, err)
		}
		for _, name := range []string{"mx.example", "127.0.0.1"} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
				t.Errorf("%s: %s: %v", kt, name, err)
			}
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other.example"}); err == nil {
			t.Errorf("%s: verifies for a name that it does not hold", kt)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	ca, err := New("test authority", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ca.Issue(Request{}); err == nil {
		t.Error("a certificate without a name was issued")
	}
	if _, _, err := ca.Issue(Request{Names: []string{"a"}, Key: "dsa"}); err == nil {
		t.Error("an unknown key type was accepted")
	}
}
