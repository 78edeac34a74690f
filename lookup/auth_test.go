package lookup

import (
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/password"
	"tabard/table"
)

const authConf = `
table users sqlite:/mem/users cache off
table rights sqlite:/mem/rights cache off
table certs sqlite:/mem/certs
listen on 127.0.0.1 port 587 tls pki <certs> auth <users> senders <rights>
listen on 127.0.0.1 port 25
action "out" relay
match from auth for any action "out"
`

// sha512crypt of "correct horse", made by OpenSSL.
const horseHash = "$6$xyz$A6xWUttqNGmYWq2sz8IJ5iJW91/6DIdzRd7lVW1ko/D3CwGgrvne4sRa5gLszUqTGzFThn.OThfhxwLUrb0dl/"

func TestAuthenticate(t *testing.T) {
	f := newFixture(t)
	s := f.service(authConf)
	users := f.table("users")
	users.set(table.Credentials, "alice@example.org", "alice@example.org", horseHash)
	users.set(table.Credentials, "bob", "{SSHA}J1/8cWVgczTunyJ5hA+/nqlHwrswMTIzNDU2Nzg5YWJjZGVm")
	users.set(table.Credentials, "login", "real@example.org", horseHash)
	users.set(table.Credentials, "locked", "locked", "!"+horseHash)
	users.set(table.Credentials, "plain", "plain", "correct horse")
	users.set(table.Credentials, "broken", "broken", "")
	tests := []struct {
		name, user, pass string
		want             AuthReply
		err              string
	}{
		{"right", "alice@example.org", "correct horse", AuthReply{true, "alice@example.org"}, ""},
		{"right, from the memo", "alice@example.org", "correct horse", AuthReply{true, "alice@example.org"}, ""},
		{"name in another case", "Alice@Example.ORG", "correct horse", AuthReply{true, "alice@example.org"}, ""},
		{"hash alone", "bob", "correct horse", AuthReply{true, "bob"}, ""},
		{"row names the user", "login", "correct horse", AuthReply{true, "real@example.org"}, ""},
		{"wrong password", "alice@example.org", "Correct horse", AuthReply{}, ""},
		{"empty password", "alice@example.org", "", AuthReply{}, ""},
		{"empty user", "", "correct horse", AuthReply{}, ""},
		{"unknown user", "nobody", "correct horse", AuthReply{}, ""},
		{"locked", "locked", "correct horse", AuthReply{}, ""},
		{"line end in the password", "alice@example.org", "correct horse\n", AuthReply{}, ""},
		{"line end in the user", "alice@example.org\r\nlookup", "correct horse", AuthReply{}, ""},
		{"NUL", "alice@example.org\x00", "correct horse", AuthReply{}, ""},
		{"long password", "alice@example.org", strings.Repeat("x", 2000), AuthReply{}, ""},
		{"not hashed", "plain", "correct horse", AuthReply{}, "unknown password scheme"},
		{"row without password", "broken", "correct horse", AuthReply{}, "empty password"},
	}
	for _, tt := range tests {
		got, err := s.Authenticate(t.Context(), AuthRequest{User: tt.user, Password: tt.pass})
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %+v, %v; want %+v, %q", tt.name, got, err, tt.want, tt.err)
		}
		if err != nil && strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: the error tells the password: %v", tt.name, err)
		}
	}
	if _, err := s.Authenticate(t.Context(), AuthRequest{Listener: 1, User: "bob", Password: "correct horse"}); err == nil {
		t.Error("a listener without auth authenticates")
	}
	if _, err := s.Authenticate(t.Context(), AuthRequest{Listener: 7, User: "bob", Password: "correct horse"}); err == nil {
		t.Error("a listener that does not exist authenticates")
	}
	users.fail(errDown)
	if got, err := s.Authenticate(t.Context(), AuthRequest{User: "alice@example.org", Password: "correct horse"}); err == nil {
		t.Errorf("table down: %+v, no error", got)
	}
}

func TestAuthMemo(t *testing.T) {
	f := newFixture(t)
	now := time.Unix(1e9, 0)
	f.clock = func() time.Time { return now }
	s := f.service(authConf)
	f.table("users").set(table.Credentials, "a", "a", horseHash)
	ask := func(pass string) bool {
		r, err := s.Authenticate(t.Context(), AuthRequest{User: "a", Password: pass})
		if err != nil {
			t.Fatal(err)
		}
		return r.OK
	}
	key := s.auth.memoKey(table.Login{User: "a", Password: horseHash}, "correct horse")
	if _, ok := s.auth.memo.get(key); ok {
		t.Fatal("remembered before it was right")
	}
	if ask("wrong") || len(s.auth.memo.all()) != 0 {
		t.Fatal("a wrong password is remembered")
	}
	if !ask("correct horse") {
		t.Fatal("refused")
	}
	if until, ok := s.auth.memo.get(key); !ok || !until.After(now) {
		t.Fatal("not remembered")
	}
	// A new hash makes the memo worthless at once.
	other, err := password.Hash("battery staple")
	if err != nil {
		t.Fatal(err)
	}
	f.table("users").set(table.Credentials, "a", "a", other)
	if ask("correct horse") {
		t.Error("the old password still opens")
	}
	if !ask("battery staple") {
		t.Error("the new password does not open")
	}
	// Removing the user, too.
	f.table("users").remove(table.Credentials, "a")
	if ask("battery staple") {
		t.Error("a removed user logs in")
	}
}

// Unknown users cost the same work as known ones: the hash seen last in their
// table, or a bcrypt hash before any was seen.
func TestDecoy(t *testing.T) {
	if _, err := password.Verify(firstDecoy, "x"); err != nil {
		t.Fatalf("the first decoy cannot be verified: %v", err)
	}
	f := newFixture(t)
	s := f.service(authConf)
	f.table("users").set(table.Credentials, "a", "a", horseHash)
	if s.auth.decoy("users") != firstDecoy {
		t.Error("no first decoy")
	}
	if _, err := s.Authenticate(t.Context(), AuthRequest{User: "a", Password: "wrong"}); err != nil {
		t.Fatal(err)
	}
	if s.auth.decoy("users") != horseHash || s.auth.decoy("others") != firstDecoy {
		t.Error("the decoy is not the hash seen last")
	}
	if r, err := s.Authenticate(t.Context(), AuthRequest{User: "nobody", Password: "correct horse"}); r.OK || err != nil {
		t.Errorf("the decoy's password lets an unknown user in: %+v, %v", r, err)
	}
}

func TestAuthenticateParallel(t *testing.T) {
	f := newFixture(t)
	s := f.service(authConf)
	f.table("users").set(table.Credentials, "a", "a", horseHash)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			pass, want := "correct horse", true
			if i%2 == 1 {
				pass, want = "wrong", false
			}
			r, err := s.Authenticate(t.Context(), AuthRequest{User: "a", Password: pass})
			if r.OK != want || err != nil {
				t.Errorf("%d: %+v, %v", i, r, err)
			}
		})
	}
	wg.Wait()
	if len(s.auth.slots) != 0 {
		t.Error("a slot was not given back")
	}
}

func TestSender(t *testing.T) {
	f := newFixture(t)
	s := f.service(authConf)
	f.table("rights").set(table.MailAddrMap, "alice", "alice@example.org", "@example.net", "sales")
	f.table("rights").set(table.MailAddrMap, "daemon", "@")
	tests := []struct {
		listener     int
		user, sender string
		want         bool
	}{
		{0, "alice", "alice@example.org", true},
		{0, "Alice", "ALICE@example.ORG", true},
		{0, "alice", "alice+tag@example.org", true},
		{0, "alice", "any@example.net", true},
		{0, "alice", "sales@other.example", true},
		{0, "alice", "bob@example.org", false},
		{0, "alice", "", false},
		{0, "daemon", "", true},
		{0, "daemon", "any@thing.example", true},
		{0, "nobody", "nobody@example.org", false},
		{0, "", "alice@example.org", false},
		{1, "", "any@thing.example", true},
	}
	for _, tt := range tests {
		r, err := s.Sender(t.Context(), SenderRequest{Listener: tt.listener, User: tt.user, Sender: tt.sender})
		if r.Allowed != tt.want || err != nil {
			t.Errorf("%+v: %+v, %v", tt, r, err)
		}
	}
	f.table("rights").fail(errDown)
	if r, err := s.Sender(t.Context(), SenderRequest{User: "alice", Sender: "alice@example.org"}); err == nil {
		t.Errorf("table down: %+v, no error", r)
	}
}
