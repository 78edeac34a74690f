package lookup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/table"
)

// forwarder is a server that forwards mail for its domain by aliases.
func forwarder(t *testing.T, domain, key string, more ...string) (*fixture, *Service) {
	t.Helper()
	f := newFixture(t)
	f.table("virtuals").set(table.Alias, "@"+domain, "anyone@elsewhere.example")
	return f, f.service(`
srs key ` + key + `
table virtuals sqlite:/mem/virtuals
listen on 127.0.0.1
action "in" maildir virtual <virtuals>
action "out" relay srs
action "plain" relay
action "fixed" relay srs mail-from "list@` + domain + `"
match from any for domain "` + domain + `" action "in"
match from any for domain "backup.example" action "out"
` + strings.Join(more, "\n") + `
match for any action "out"
`)
}

func (f *fixture) mailFrom(s *Service, action, sender, original, recipient string) string {
	f.t.Helper()
	_, domain, _ := strings.Cut(recipient, "@")
	r, err := s.Route(f.t.Context(), RouteRequest{Action: action, Domain: domain, Sender: sender, Recipient: recipient, Original: original})
	if err != nil {
		f.t.Errorf("%s to %s: %v", sender, recipient, err)
	}
	return r.MailFrom
}

func (f *fixture) recipient(s *Service, sender, rcpt string) string {
	f.t.Helper()
	return reply(s.Recipient(f.t.Context(), RecipientRequest{Session: session(), Sender: sender, Recipient: rcpt}))
}

func TestSRSRewritesForwardedMail(t *testing.T) {
	f, s := forwarder(t, "a.example", "secret")
	for _, tt := range []struct{ action, sender, original, recipient, want string }{
		{"out", "user@first.example", "info@a.example", "x@b.example", "SRS0=HHHH=TT=first.example=user@a.example"},
		{"out", "user@first.example", "info@A.EXAMPLE", "x@b.example", "SRS0=HHHH=TT=first.example=user@a.example"},
		{"out", "user@first.example", "postmaster", "x@b.example", "SRS0=HHHH=TT=first.example=user@mx.example.org"},
		{"out", "user@first.example", "x@b.example", "x@b.example", ""}, // relayed, not forwarded
		{"out", "user@first.example", "x@B.example", "x@b.example", ""},
		{"out", "user@first.example", "", "x@b.example", ""},
		{"out", "user@a.example", "info@a.example", "x@b.example", ""}, // ours already
		{"out", "", "info@a.example", "x@b.example", ""},               // a bounce stays one
		{"out", strings.Repeat("x", 200) + "@" + strings.Repeat("y.", 50) + "example", "info@a.example", "x@b.example", ""},
		{"plain", "user@first.example", "info@a.example", "x@b.example", ""},
		{"fixed", "user@first.example", "info@a.example", "x@b.example", "list@a.example"},
		{"", "user@first.example", "info@a.example", "x@b.example", ""},
	} {
		got := f.mailFrom(s, tt.action, tt.sender, tt.original, tt.recipient)
		if strings.HasPrefix(got, "SRS0=") && len(got) > 12 {
			got = "SRS0=HHHH=TT" + got[12:]
		}
		if got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
	if !strings.Contains(f.log.String(), "reverse-path stays as it is") {
		t.Errorf("log: %s", f.log)
	}
	if _, err := s.Route(t.Context(), RouteRequest{Action: "out", Original: strings.Repeat("x", 5000)}); err == nil {
		t.Error("long recipient: no error")
	}
}

// A bounce finds its way back through two forwarders, from each by its own rules.
func TestSRSBackThroughTwoForwarders(t *testing.T) {
	fa, a := forwarder(t, "a.example", "a's")
	fb, b := forwarder(t, "b.example", "b's")
	atA := fa.mailFrom(a, "out", "user@first.example", "info@a.example", "x@b.example")
	atB := fb.mailFrom(b, "out", atA, "x@b.example", "y@c.example")
	if !strings.HasPrefix(atB, "SRS1=") || !strings.HasSuffix(atB, "@b.example") {
		t.Fatal(atB)
	}
	if got := fb.recipient(b, "", atB); got != "relay out "+atA {
		t.Errorf("%s: %s", atB, got)
	}
	if got := fa.recipient(a, "", atA); got != "relay out user@first.example" {
		t.Errorf("%s: %s", atA, got)
	}
	// The bounces that a queue makes itself, too, and without a rule.
	for _, s := range []*Service{b, a} {
		s.rules = nil
	}
	if got := reply(b.Bounce(t.Context(), atB)); got != "relay  "+atA {
		t.Errorf("%s: %s", atB, got)
	}
	if got := reply(a.Bounce(t.Context(), atA)); got != "relay  user@first.example" {
		t.Errorf("%s: %s", atA, got)
	}
}

// Mail that went through us twice comes back through us twice.
func TestSRSBackThroughOneTwice(t *testing.T) {
	f, s := forwarder(t, "a.example", "a's")
	once := f.mailFrom(s, "out", "user@first.example", "info@a.example", "x@b.example")
	twice := f.mailFrom(s, "out", strings.Replace(once, "@a.example", "@b.example", 1), "other@a.example", "y@c.example")
	twice = strings.Replace(twice, "=b.example=", "=a.example=", 1)
	if got := f.recipient(s, "", twice); !strings.HasPrefix(got, "550 5.1.1 Invalid recipient: <SRS1=") {
		t.Errorf("a changed address: %s", got)
	}
	twice = f.mailFrom(s, "out", once, "other@z.example", "y@c.example")
	if got := f.recipient(s, "", twice); got != "relay out user@first.example" {
		t.Errorf("%s: %s", twice, got)
	}
}

func TestSRSRefusals(t *testing.T) {
	f, s := forwarder(t, "a.example", "secret", `match from any for domain "shut.example" reject`)
	good := f.mailFrom(s, "out", "user@first.example", "info@a.example", "x@b.example")
	shut := f.mailFrom(s, "out", "user@shut.example", "info@a.example", "x@b.example")
	no := func(rcpt string) string { return "550 5.1.1 Invalid recipient: <" + rcpt + ">: " }
	forged := strings.Replace(good, "=user@", "=root@", 1)
	for _, tt := range []struct{ sender, rcpt, want string }{
		{"", good, "relay out user@first.example"},
		{"spam@x.example", good, no(good) + "this SRS address takes bounces only"},
		{"", forged, no(forged) + "this SRS address was not made here"},
		{"", "srs0-x@a.example", "relay out anyone@elsewhere.example"}, // has not our form
		{"", shut, "550 5.7.1 Invalid recipient: <" + shut + ">"},
		// Those of other forwarders go their way.
		{"", "SRS0=abcd=AB=first.example=user@backup.example", "relay out SRS0=abcd=AB=first.example=user@backup.example"},
		{"", "SRS0=abcd=AB=first.example=user@other.example", "550 5.7.1 Invalid recipient: <SRS0=abcd=AB=first.example=user@other.example>: relaying denied"},
		{"u@x.example", "SRS0=abcd=AB=first.example=user@backup.example", "relay out SRS0=abcd=AB=first.example=user@backup.example"},
	} {
		if got := f.recipient(s, tt.sender, tt.rcpt); got != tt.want {
			t.Errorf("<%s> to %s: %s", tt.sender, tt.rcpt, got)
		}
	}
	now := time.Now()
	f.clock = func() time.Time { return now.Add(5 * 24 * time.Hour) }
	if got := f.recipient(s, "", good); got != no(good)+"this SRS address has expired" {
		t.Errorf("after five days: %s", got)
	}
}

// Without a key the address is like any other.
func TestNoSRS(t *testing.T) {
	f, s := expandFixture(t)
	if got := f.recipient(s, "", "SRS0=abcd=AB=x.example=user@relayed.example"); got != "relay out SRS0=abcd=AB=x.example=user@relayed.example" {
		t.Error(got)
	}
}

func TestSRSKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "srs.key")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	f, s := forwarder(t, "a.example", "file:"+path)
	if got := f.recipient(s, "", "SRS0=abcd=AB=x.example=user@a.example"); !strings.Contains(got, "error: ") || !strings.Contains(got, path) {
		t.Errorf("no file yet: %s", got)
	}
	if found := s.Check(t.Context()); len(found) == 0 || !strings.HasPrefix(found[0].String(), "test.conf:2:1: srs key: ") {
		t.Errorf("check: %v", found)
	}
	write("\nfirst\n")
	sign := func() string { return f.mailFrom(s, "out", "user@first.example", "info@a.example", "x@b.example") }
	old := sign()
	write("second\nfirst\n")
	later := sign()
	if old == later {
		t.Error("the new key does not sign")
	}
	write("second\n")
	if got := f.recipient(s, "", old); !strings.HasPrefix(got, "550") {
		t.Errorf("a key that is gone: %s", got)
	}
	for _, text := range []string{"\n \n", strings.Repeat("x", 2<<20)} {
		write(text) // leaves in force what was read before
		if got := f.recipient(s, "", later); got != "relay out user@first.example" || s.srs.check() == nil {
			t.Errorf("with a broken file: %s", got)
		}
	}
	write("second\nfirst\n")
	for _, addr := range []string{old, later} {
		if got := f.recipient(s, "", addr); got != "relay out user@first.example" || s.srs.check() != nil {
			t.Errorf("%s: %s", addr, got)
		}
	}
}
