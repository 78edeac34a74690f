package password

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/pbkdf2"
	"github.com/go-crypt/crypt/algorithm/scrypt"
)

const horse = "correct horse"

func TestVerifyVectors(t *testing.T) {
	for _, stored := range vectors {
		if ok, err := Verify(stored, horse); !ok || err != nil {
			t.Errorf("Verify(%.30s...) = %v, %v", stored, ok, err)
		}
		for _, wrong := range []string{"correct horsf", "correct horse ", "Correct horse", ""} {
			if ok, err := Verify(stored, wrong); ok || err != nil {
				t.Errorf("Verify(%.30s..., %q) = %v, %v", stored, wrong, ok, err)
			}
		}
	}
}

// hashers makes hashes of the schemes for which no other program is at hand.
func hashers(t *testing.T) map[string]algorithm.Hash {
	t.Helper()
	all := map[string]algorithm.Hash{}
	add := func(name string, h algorithm.Hash, err error) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = h
	}
	for _, v := range []argon2.Variant{argon2.VariantID, argon2.VariantI} {
		h, err := argon2.New(argon2.WithVariant(v), argon2.WithM(64), argon2.WithT(1), argon2.WithP(1))
		add(v.String(), h, err)
	}
	sha256, err := bcrypt.New(bcrypt.WithVariant(bcrypt.VariantSHA256), bcrypt.WithIterations(10))
	add("bcrypt-sha256", sha256, err)
	sc, err := scrypt.New(scrypt.WithLN(4), scrypt.WithR(8), scrypt.WithP(1))
	add("scrypt", sc, err)
	pb, err := pbkdf2.New(pbkdf2.WithVariant(pbkdf2.VariantSHA512), pbkdf2.WithIterations(100000))
	add("pbkdf2", pb, err)
	return all
}

func TestVerifyMade(t *testing.T) {
	for name, h := range hashers(t) {
		digest, err := h.Hash(horse)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stored := digest.Encode()
		for _, s := range []string{stored, "{CRYPT}" + stored} {
			if ok, err := Verify(s, horse); !ok || err != nil {
				t.Errorf("%s: right password: %v, %v (%s)", name, ok, err, s)
			}
			if ok, err := Verify(s, "wrong"); ok || err != nil {
				t.Errorf("%s: wrong password: %v, %v", name, ok, err)
			}
		}
	}
}

// TestVerifyCut: a hash that a column cut, so that little of it is left, opens to nothing:
// one byte of it would open to one in 256 passwords.
func TestVerifyCut(t *testing.T) {
	t.Parallel()
	all := slices.Clone(vectors)
	for name, h := range hashers(t) {
		digest, err := h.Hash(horse)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, digest.Encode())
	}
	for _, stored := range all {
		if strings.Contains(stored, "SCRAM") { // its last field is not compared with
			continue
		}
		// Behind what ends the salt, up to some 12 bytes are left.
		begin := strings.LastIndexAny(stored, "$,:}") + 1
		for n := begin; n < min(begin+16, len(stored)-20); n++ {
			if ok, _ := Verify(stored[:n], horse); ok {
				t.Errorf("%.40s... cut after %d of %d characters opens", stored, n-begin, len(stored)-begin)
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	tests := []struct {
		name, stored string
		want         error
	}{
		{"plain text", "secret", ErrScheme},
		{"plain scheme", "{PLAIN}correct horse", ErrPlain},
		{"clear scheme", "{cleartext}correct horse", ErrPlain},
		{"DES crypt", "rEK1ecacw.7.c", ErrScheme},
		{"unknown id", "$99$salt$key", ErrScheme},
		{"library's plain text", "$plaintext$correct horse$", ErrScheme},
		{"unknown scheme", "{CRAM-MD5}9186d855e11eba527a7a52ca82b313e180d62234f0acc9051b527243d41e2740", ErrScheme},
		{"unknown encoding", "{SHA.UU}xx", ErrScheme},
		{"no closing brace", "{SSHA", ErrFormat},
		{"empty scheme", "{}x", ErrFormat},
		{"short digest", "{SSHA}AAAA", ErrFormat},
		{"salt in an unsalted digest", "{SHA}J1/8cWVgczTunyJ5hA+/nqlHwrswMTIzNDU2Nzg5YWJjZGVm", ErrFormat},
		{"not base64", "{SSHA}!!!", ErrFormat},
		{"truncated bcrypt", "$2b$05$abcdefghijklmnopqrstuu", ErrFormat},
		{"long row", "{SSHA}" + strings.Repeat("A", 5000), ErrFormat},
		{"bcrypt cost", "$2b$31$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2", ErrCost},
		{"sha-crypt rounds", "$6$rounds=999999999$saltsalt$x", ErrCost},
		{"argon2 memory", "$argon2id$v=19$m=4194304,t=3,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", ErrCost},
		{"argon2 memory given twice", "$argon2id$v=19$m=8,t=3,p=1,m=4194304$c2FsdHNhbHQ$AAAAAAAAAAA", ErrCost},
		{"argon2 memory in the version", "$argon2id$v=19,m=4194304$t=3,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", ErrCost},
		{"argon2 passes", "$argon2id$v=19$m=65536,t=4000000000,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", ErrCost},
		{"argon2 lanes", "$argon2id$v=19$m=64,t=1,p=100000$c2FsdHNhbHQ$AAAAAAAAAAA", ErrCost},
		{"scrypt memory", "$scrypt$ln=21,r=64,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", ErrCost},
		{"scrypt negative", "$scrypt$ln=-1,r=8,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", ErrFormat},
		{"yescrypt memory", "$y$jzz$saltsalt$AAAAAAAAAAA", ErrCost},
		{"pbkdf2 rounds", "$pbkdf2-sha512$4000000000$c2FsdHNhbHQ$AAAAAAAAAAA", ErrCost},
		{"wrapped pbkdf2 rounds", "{PBKDF2-SHA512}4000000000$c2FsdHNhbHQ$AAAAAAAAAAA", ErrCost},
		{"scram rounds", "{SCRAM-SHA-256}4000000000,AAAA,AAAA,AAAA", ErrCost},
		{"scram fields", "{SCRAM-SHA-256}1000,AAAA", ErrFormat},
	}
	for _, tt := range tests {
		ok, err := Verify(tt.stored, horse)
		if ok || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.name, ok, err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), "horse") || strings.Contains(err.Error(), "salt")) {
			t.Errorf("%s: error tells a secret: %v", tt.name, err)
		}
	}
}

func TestVerifyLocked(t *testing.T) {
	for _, stored := range []string{"", "!", "*", "!" + vectors[0], "*LK*"} {
		if ok, err := Verify(stored, horse); ok || err != nil {
			t.Errorf("Verify(%q) = %v, %v", stored, ok, err)
		}
	}
}

func TestHashed(t *testing.T) {
	for _, stored := range vectors {
		if !Hashed(stored) {
			t.Errorf("Hashed(%.30q) = false", stored)
		}
	}
	for _, plain := range []string{"", "secret", "$ecret", "pa$$word", "{curly", "{PLAIN}x", "{a b}c", "s}x", "!"} {
		if Hashed(plain) {
			t.Errorf("Hashed(%q) = true", plain)
		}
	}
}

func TestHash(t *testing.T) {
	stored, err := Hash(horse)
	if err != nil || !strings.HasPrefix(stored, "$2b$10$") {
		t.Fatalf("Hash = %q, %v", stored, err)
	}
	if again, _ := Hash(horse); again == stored {
		t.Error("two hashes have one salt")
	}
	if ok, err := Verify(stored, horse); !ok || err != nil {
		t.Errorf("Verify = %v, %v", ok, err)
	}
	for _, bad := range []string{"", "a\nb", "a\x00b", strings.Repeat("x", 73), strings.Repeat("x", 2000)} {
		if _, err := Hash(bad); !errors.Is(err, ErrPassword) {
			t.Errorf("Hash(%.10q) = %v, want ErrPassword", bad, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, v := range vectors {
		f.Add(v)
	}
	f.Add("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAA")
	f.Add("$scrypt$ln=1,r=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, stored string) {
		if strings.Contains(stored, "=") && len(stored) > 200 {
			return
		}
		if ok, _ := Verify(stored, "no such password\x01"); ok {
			t.Fatalf("%q opens to anything", stored)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for name, i := range map[string]int{"yescrypt": 0, "bcrypt5": 1, "sha512-crypt": 4, "ssha512": 18} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if ok, err := Verify(vectors[i], horse); !ok {
					b.Fatal(err)
				}
			}
		})
	}
}
