package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// `ca ls` has a line for each CRL, and says when one has been waited for in
// vain.
func TestDescribeCRL(t *testing.T) {
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, SubjectKeyId: []byte{1}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: now, NotAfter: now.Add(100 * time.Hour)}
	ca, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(50 * time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(2), RevocationTime: now}}}, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	bundle := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca})) + string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list}))
	for after, want := range map[time.Duration]string{
		time.Hour: "1 revoked", 60 * time.Hour: "expired: no certificate of this issuer verifies",
	} {
		got := describeCA("internal", bundle, now.Add(after))
		if len(got) != 2 || got[1].Subject != "CRL of CN=CA" || got[1].State != want || after == time.Hour && got[1].Days != 2 {
			t.Errorf("after %v: %+v", after, got)
		}
	}
}
