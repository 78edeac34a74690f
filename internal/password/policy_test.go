package password

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func TestPolicy(t *testing.T) {
	const (
		ssha512 = "{SSHA512}k8G/JHpStMMV4C65/rUseBLZfScFAJyrFa/TgBrvr5meqXBDwy/vq4MC+A2d6yKZV/ylOSSuwjt2ToPA5yDQiJGZI8U="
		md5     = "{MD5}$1$.n/yFCZj$BiYIreArpaNrT.JiC0P.f1"
		sha     = "{SHA}CRtQNYhcABcP7J7PJCJJM+PeP8w="
		ssha    = "{SSHA}Gwb4ZHnRy4U8aGWYiBkT5knxLzALavw3"
		hexMD5  = "f1bdf5ed1d7ad7ede4e3809bd35644b0"
	)
	strict := Policy{RefuseWeak: true, AllowPlain: true}
	tests := []struct {
		policy Policy
		stored string
		want   error
	}{
		{Policy{}, ssha512, nil},
		{strict, ssha512, nil},
		{Policy{}, md5, nil},
		{strict, md5, ErrWeak},
		{strict, md5[len("{MD5}"):], ErrWeak},
		{strict, "{CRYPT}" + md5[len("{MD5}"):], ErrWeak},
		{Policy{}, sha, nil},
		{strict, sha, ErrWeak},
		{strict, "{sha.b64}CRtQNYhcABcP7J7PJCJJM+PeP8w=", ErrWeak},
		{Policy{}, ssha, nil},
		{strict, ssha, ErrWeak},
		{Policy{}, "{PLAIN}horse", ErrPlain},
		{strict, "{PLAIN}horse", ErrWeak},
		{Policy{AllowPlain: true}, "{PLAIN}horse", nil},
		{Policy{AllowPlain: true}, "{cleartext.b64}" + base64.StdEncoding.EncodeToString([]byte("horse")), nil},
		{Policy{}, hexMD5, ErrScheme},
		{Policy{AllowPlain: true}, "horse", ErrScheme},
		{Policy{DefaultScheme: "PLAIN-MD5"}, hexMD5, nil},
		{Policy{DefaultScheme: "plain-md5", RefuseWeak: true}, hexMD5, ErrWeak},
		{Policy{DefaultScheme: "SSHA512"}, ssha512[len("{SSHA512}"):], nil},
		{Policy{DefaultScheme: "PLAIN"}, "horse", ErrPlain},
		{Policy{DefaultScheme: "PLAIN", AllowPlain: true}, "horse", nil},
		// What says itself what it is needs no default.
		{Policy{DefaultScheme: "PLAIN-MD5"}, ssha512, nil},
		{Policy{DefaultScheme: "PLAIN", AllowPlain: true}, md5[len("{MD5}"):], nil},
	}
	for _, tt := range tests {
		ok, err := tt.policy.Verify(tt.stored, "horse")
		if ok != (tt.want == nil) || !errors.Is(err, tt.want) {
			t.Errorf("%+v: %.30s: %v, %v; want %v", tt.policy, tt.stored, ok, err, tt.want)
		}
		if tt.want == nil {
			if ok, err := tt.policy.Verify(tt.stored, "Horse"); ok || err != nil {
				t.Errorf("%+v: %.30s: a wrong password: %v, %v", tt.policy, tt.stored, ok, err)
			}
		}
		if err != nil && strings.Contains(err.Error(), "horse") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestKnownScheme(t *testing.T) {
	for _, name := range []string{"PLAIN", "MD5", "plain-md5", "SSHA512", "SHA256.HEX", "CRYPT", "BLF-CRYPT", "ARGON2ID", "PBKDF2", "PBKDF2-SHA512", "SCRAM-SHA-256"} {
		if !KnownScheme(name) {
			t.Errorf("%s is not known", name)
		}
	}
	for _, name := range []string{"", "DES-CRYPT", "CRAM-MD5", "NTLM", "SSHA.ROT13", "{SSHA}"} {
		if name != "" && KnownScheme(name) {
			t.Errorf("%s is known", name)
		}
	}
}
