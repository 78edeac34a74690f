package sealing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/youmark/pkcs8"
)

func ring(t testing.TB, old *Ring) *Ring {
	t.Helper()
	r, err := old.WithNewKey()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSeal(t *testing.T) {
	r := ring(t, nil)
	secret, spki := []byte("a PKCS#8 key"), []byte("its public key")
	b := r.Seal(secret, spki)
	text := pem.EncodeToMemory(b)
	if bytes.Contains(text, secret) || !strings.Contains(string(text), "Master-Key: "+r.IDs()[0]) {
		t.Errorf("sealed:\n%s", text)
	}
	back, _ := pem.Decode(text)
	again, err := ParseRing(ring(t, r).Text())
	if err != nil || len(again.IDs()) != 2 || again.IDs()[1] != r.IDs()[0] {
		t.Fatalf("%v, %v", again, err)
	}
	if got, err := again.Open(back); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("opened %q, %v", got, err)
	}
	if other := r.Seal(secret, spki); bytes.Equal(other.Bytes, b.Bytes) {
		t.Error("the same key is sealed to the same bytes")
	}
	if _, err := again.Only(func(string) bool { return false }).Open(back); !errors.Is(err, ErrSealed) || !strings.Contains(err.Error(), r.IDs()[0]) {
		t.Errorf("without the key: %v", err)
	}
	for what, change := range map[string]func(b *pem.Block){
		"content":    func(b *pem.Block) { b.Bytes[20] ^= 1 },
		"nonce":      func(b *pem.Block) { b.Bytes[0] ^= 1 },
		"cut":        func(b *pem.Block) { b.Bytes = b.Bytes[:20] },
		"empty":      func(b *pem.Block) { b.Bytes = nil },
		"public key": func(b *pem.Block) { b.Headers[PublicHeader] = strings.Repeat("0", 64) },
		"no header":  func(b *pem.Block) { b.Headers = nil },
	} {
		bad, _ := pem.Decode(text)
		change(bad)
		if got, err := r.Open(bad); !errors.Is(err, ErrSealed) || got != nil {
			t.Errorf("%s changed: %q, %v", what, got, err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %s", r, r, r, r); strings.Contains(s, r.keys[0].text) {
		t.Errorf("a master key is printed: %s", s)
	}
}

func TestParseRing(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	for text, want := range map[string]string{
		"":                           "no master key",
		"# only a comment\n":         "no master key",
		"abc":                        "line 1: not 32 bytes",
		"\n" + key[:40]:              "line 2: not 32 bytes",
		key + "\n" + key:             "line 2: the same key again",
		strings.Repeat("x\n", 200):   "line 1: not 32 bytes",
		"-----BEGIN PRIVATE KEY----": "line 1: not 32 bytes",
	} {
		if _, err := ParseRing([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	if r, err := ParseRing([]byte("# c\r\n" + key + "\r\n")); err != nil || len(r.IDs()) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}

func encrypted(t *testing.T, opts *pkcs8.Opts) (*ecdsa.PrivateKey, *pem.Block) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pkcs8.MarshalPrivateKey(key, []byte("open sesame"), opts)
	if err != nil {
		t.Fatal(err)
	}
	return key, &pem.Block{Type: EncryptedType, Bytes: der}
}

func TestDecrypt(t *testing.T) {
	passes, err := ParsePassphrases([]byte("wrong\r\n\nopen sesame\n"))
	if err != nil || len(passes) != 2 {
		t.Fatalf("%q, %v", passes, err)
	}
	for name, opts := range map[string]*pkcs8.Opts{
		"default": nil,
		"scrypt":  {Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 8, CostParameter: 1 << 14, BlockSize: 8, ParallelizationParameter: 1}},
		"pbkdf2":  {Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{HMACHash: crypto.SHA256, SaltSize: 8, IterationCount: 2048}},
	} {
		key, b := encrypted(t, opts)
		if got, err := Decrypt(b, passes); err != nil || !key.Equal(got) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Decrypt(b, passes[:1]); !errors.Is(err, ErrEncrypted) || !strings.Contains(err.Error(), "none of 1") || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s, wrong passphrase: %v", name, err)
		}
	}
	plain, err := x509.MarshalPKCS8PrivateKey(func() any { key, _ := encrypted(t, nil); return key }())
	if err != nil {
		t.Fatal(err)
	}
	for what, der := range map[string][]byte{"junk": []byte("junk"), "empty": nil, "not encrypted": plain} {
		if _, err := Decrypt(&pem.Block{Type: EncryptedType, Bytes: der}, passes); !errors.Is(err, ErrEncrypted) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := ParsePassphrases([]byte("\n\n")); err == nil {
		t.Error("no passphrase accepted")
	}
}

// A key that was made to take for ever is refused before it does.
func TestDecryptIsBounded(t *testing.T) {
	_, b := encrypted(t, &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{HMACHash: crypto.SHA256, SaltSize: 8, IterationCount: 1 << 16}})
	// The count is an INTEGER of three bytes: make it one that is huge.
	huge := bytes.Replace(b.Bytes, []byte{2, 3, 1, 0, 0}, []byte{2, 3, 0x7f, 0xff, 0xff}, 1)
	if bytes.Equal(huge, b.Bytes) {
		t.Fatal("the count was not found")
	}
	if _, err := Decrypt(&pem.Block{Type: EncryptedType, Bytes: huge}, [][]byte{[]byte("x")}); err == nil || !strings.Contains(err.Error(), "iterations") {
		t.Errorf("2^23 iterations: %v", err)
	}
	_, b = encrypted(t, &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 8, CostParameter: 1 << 10, BlockSize: 8, ParallelizationParameter: 1}})
	huge = bytes.Replace(b.Bytes, []byte{2, 2, 4, 0}, []byte{2, 2, 0x7f, 0xff}, 1)
	huge = bytes.Replace(huge, []byte{2, 1, 8, 2, 1, 1}, []byte{2, 1, 0x7f, 2, 1, 0x7f}, 1)
	if _, err := Decrypt(&pem.Block{Type: EncryptedType, Bytes: huge}, [][]byte{[]byte("x")}); err == nil || !strings.Contains(err.Error(), "costs too much") {
		t.Errorf("huge scrypt: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	r := ring(f, nil)
	f.Add(pem.EncodeToMemory(r.Seal([]byte("key"), []byte("public"))), []byte("pass"))
	f.Fuzz(func(t *testing.T, text, pass []byte) {
		_, _ = ParseRing(text)
		_, _ = ParsePassphrases(text)
		b, _ := pem.Decode(text)
		if b == nil {
			return
		}
		_, _ = r.Open(b)
		if affordable(b.Bytes) == nil && len(b.Bytes) < 1000 {
			return // deriving is the library's, and slow
		}
		_, _ = Decrypt(b, [][]byte{pass})
	})
}
