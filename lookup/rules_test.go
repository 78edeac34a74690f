package lookup

import (
	"net/netip"
	"strings"
	"testing"

	"tabard/table"
)

const rulesConf = `
table ours { "example.org", "*.example.net", "xn--bcher-kva.example" }
table nets { 192.0.2.0/24, "2001:db8::/32" }
table names { "*.friend.example" }
table staff { "alice", "bob@example.org", "@corp.example" }
table baddies { "@bad.example", "@" }
table vips { "ceo@example.org", "abuse" }
table users { "alice" = "1000:1000:/home/alice", "postmaster" = "1:1:/", "box" = "1:1:/" }
table pats { "^list-[0-9]+@", "(?i)^OWNER-" }
listen on 127.0.0.1 port 25
listen on 127.0.0.1 port 26 tag "inside"
action "box" maildir userbase <users>
action "out" relay
action "staff" relay
match from any for rcpt-to <vips> action "box"
match tag "inside" from any for domain "tagged.example" action "out"
match from src <nets> for domain "src.example" action "out"
match from rdns for domain "named.example" action "out"
match from rdns <names> for domain "friend.example" action "out"
match from rdns regex "^mail[0-9]" for domain "rdnsre.example" action "out"
match !from src <nets> for domain "notsrc.example" action "out"
match from socket for domain "socket.example" action "out"
match from mail-from "@good.example" for domain "frommail.example" action "out"
match from any mail-from <baddies> for domain "fromlist.example" reject
match from any for domain "fromlist.example" action "out"
match from any for domain "helo.example" helo "good.helo" action "out"
match from any for domain "nohelo.example" !helo regex "^bad" action "out"
match from any for domain "tls.example" tls action "out"
match from any for domain "notls.example" !tls action "out"
match from any for domain "auth.example" auth action "out"
match from any for domain "staff.example" auth <staff> action "staff"
match from auth <staff> for domain "fromstaff.example" action "staff"
match from any for domain "re.example" rcpt-to regex <pats> action "out"
match from any for domain "refuse.example" reject
match from any for domain <ours> action "box"
match from local for any action "out"
match for local action "box"
match from auth for any action "out"
`

func session() Session {
	return Session{ID: "s", Remote: netip.MustParseAddr("198.51.100.7"), RDNS: "<unknown>", Helo: "client.example"}
}

func TestRules(t *testing.T) {
	s := newFixture(t).service(rulesConf)
	const out, box = "relay out ", "local box "
	denied := func(addr string) string { return "550 5.7.1 Invalid recipient: <" + addr + ">: relaying denied" }
	policy := func(addr string) string { return "550 5.7.1 Invalid recipient: <" + addr + ">" }
	tests := []struct {
		name   string
		change func(*Session)
		sender string
		rcpt   string
		want   string
	}{
		{"stranger to a foreign domain", nil, "a@b.example", "x@foreign.example", denied("x@foreign.example")},
		{"stranger to our domain", nil, "a@b.example", "alice@example.org", box + "alice@example.org alice"},
		{"our domain, any case", nil, "a@b.example", "Alice@EXAMPLE.org", box + "Alice@example.org alice"},
		{"wildcard domain", nil, "", "alice@a.example.net", box + "alice@a.example.net alice"},
		{"wildcard is one label", nil, "", "alice@a.b.example.net", denied("alice@a.b.example.net")},
		{"wildcard is not the domain", nil, "", "alice@example.net", denied("alice@example.net")},
		{"U-label of an A-label entry", nil, "", "alice@bücher.example", box + "alice@bücher.example alice"},
		{"user with tag", nil, "", "alice+x@example.org", box + "alice+x@example.org alice"},
		{"unknown user", nil, "", "nobody@example.org", "550 5.1.1 Invalid recipient: <nobody@example.org>"},
		{"rcpt-to comes first", nil, "", "ceo@example.org", "550 5.1.1 Invalid recipient: <ceo@example.org>"},
		{"rcpt-to without domain", nil, "", "abuse@anywhere.example", "550 5.1.1 Invalid recipient: <abuse@anywhere.example>"},
		{"tag", func(s *Session) { s.Listener = 1 }, "", "x@tagged.example", out + "x@tagged.example"},
		{"other tag", nil, "", "x@tagged.example", denied("x@tagged.example")},
		{"src", func(s *Session) { s.Remote = netip.MustParseAddr("192.0.2.9") }, "", "x@src.example", out + "x@src.example"},
		{"src v6", func(s *Session) { s.Remote = netip.MustParseAddr("2001:db8::9") }, "", "x@src.example", out + "x@src.example"},
		{"src v4 in v6", func(s *Session) { s.Remote = netip.MustParseAddr("::ffff:192.0.2.9") }, "", "x@src.example", out + "x@src.example"},
		{"other src", nil, "", "x@src.example", denied("x@src.example")},
		{"rdns", func(s *Session) { s.RDNS = "host.example" }, "", "x@named.example", out + "x@named.example"},
		{"no rdns", nil, "", "x@named.example", denied("x@named.example")},
		{"rdns table", func(s *Session) { s.RDNS = "a.friend.example" }, "", "x@friend.example", out + "x@friend.example"},
		{"rdns regex", func(s *Session) { s.RDNS = "mail7.x.example" }, "", "x@rdnsre.example", out + "x@rdnsre.example"},
		{"not src", nil, "", "x@notsrc.example", out + "x@notsrc.example"},
		{"not src, but is", func(s *Session) { s.Remote = netip.MustParseAddr("192.0.2.9") }, "", "x@notsrc.example", denied("x@notsrc.example")},
		{"socket", func(s *Session) { s.Socket = true }, "", "x@socket.example", out + "x@socket.example"},
		{"mail-from as origin", nil, "Me@Good.example", "x@frommail.example", out + "x@frommail.example"},
		{"mail-from reject", nil, "me@bad.example", "x@fromlist.example", policy("x@fromlist.example")},
		{"null mail-from", nil, "", "x@fromlist.example", policy("x@fromlist.example")},
		{"helo", func(s *Session) { s.Helo = "GOOD.helo" }, "", "x@helo.example", out + "x@helo.example"},
		{"other helo, but a domain of ours", nil, "", "x@helo.example", policy("x@helo.example")},
		{"negated regex", nil, "", "x@nohelo.example", out + "x@nohelo.example"},
		{"negated regex matches", func(s *Session) { s.Helo = "bad.helo" }, "", "x@nohelo.example", policy("x@nohelo.example")},
		{"tls", func(s *Session) { s.TLS = true }, "", "x@tls.example", out + "x@tls.example"},
		{"no tls", nil, "", "x@tls.example", policy("x@tls.example")},
		{"not tls", nil, "", "x@notls.example", out + "x@notls.example"},
		{"not tls, but is", func(s *Session) { s.TLS = true }, "", "x@notls.example", policy("x@notls.example")},
		{"auth", func(s *Session) { s.User = "zoe" }, "", "x@auth.example", out + "x@auth.example"},
		{"not auth", nil, "", "x@auth.example", policy("x@auth.example")},
		{"auth by name", func(s *Session) { s.User = "Alice" }, "", "x@staff.example", "relay staff " + "x@staff.example"},
		{"auth by address", func(s *Session) { s.User = "bob@example.org" }, "", "x@staff.example", "relay staff " + "x@staff.example"},
		{"auth by the address's domain", func(s *Session) { s.User = "zoe@corp.example" }, "", "x@staff.example", "relay staff " + "x@staff.example"},
		{"auth by another domain", func(s *Session) { s.User = "zoe@else.example" }, "", "x@staff.example", out + "x@staff.example"},
		{"from auth table", func(s *Session) { s.User = "alice" }, "", "x@fromstaff.example", "relay staff " + "x@fromstaff.example"},
		{"rcpt-to regex", nil, "", "list-17@re.example", out + "list-17@re.example"},
		{"rcpt-to regex without case", nil, "", "Owner-x@re.example", out + "Owner-x@re.example"},
		{"rcpt-to regex with case", nil, "", "LIST-17@re.example", policy("LIST-17@re.example")},
		{"reject", nil, "", "x@refuse.example", policy("x@refuse.example")},
		{"local to anywhere", func(s *Session) { s.Remote = netip.MustParseAddr("127.0.0.1") }, "", "x@foreign.example", out + "x@foreign.example"},
		{"local v6", func(s *Session) { s.Remote = netip.MustParseAddr("::1") }, "", "x@foreign.example", out + "x@foreign.example"},
		{"local socket", func(s *Session) { s.Socket, s.Listener, s.Remote = true, -1, netip.Addr{} }, "", "x@foreign.example", out + "x@foreign.example"},
		{"implicit from local", nil, "", "alice@mx.example.org", denied("alice@mx.example.org")},
		{"implicit for local", func(s *Session) { s.Socket = true }, "", "alice@localhost", out + "alice@localhost"},
		{"authenticated to anywhere", func(s *Session) { s.User = "zoe" }, "", "x@foreign.example", out + "x@foreign.example"},
		{"bare postmaster", func(s *Session) { s.User = "zoe" }, "", "postmaster", out + "postmaster@mx.example.org"},
		{"malformed", nil, "", "a b@example.org", "553 5.1.3 Invalid recipient: <a b@example.org>"},
		{"line ends", nil, "", "a@b\r\n250 ok", "553 5.1.3 Invalid recipient: <a@b 250 ok>"},
		{"empty", nil, "", "", "553 5.1.3 Invalid recipient: <>"},
		{"far too long", nil, "", strings.Repeat("x", 5000), "553 5.1.3 Invalid recipient: address too long"},
	}
	for _, tt := range tests {
		sess := session()
		if tt.change != nil {
			tt.change(&sess)
		}
		got := reply(s.Recipient(t.Context(), RecipientRequest{Session: sess, Sender: tt.sender, Recipient: tt.rcpt}))
		if got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestRuleOrderAndPosition(t *testing.T) {
	s := newFixture(t).service(`
action "first" relay
action "second" relay
match from any for domain "a.example" action "first"
match from any for domain { "a.example", "b.example" } action "second"
`)
	for rcpt, want := range map[string][2]string{"x@a.example": {"first", "test.conf:4:1"}, "x@b.example": {"second", "test.conf:5:1"}} {
		r, err := s.Recipient(t.Context(), RecipientRequest{Session: Session{Socket: true, Listener: -1}, Recipient: rcpt})
		if err != nil || len(r.Targets) != 1 || r.Targets[0].Action != want[0] || r.Rule != want[1] {
			t.Errorf("%s: %+v, %v; want %v", rcpt, r, err, want)
		}
	}
}

// A table that cannot be asked is a temporary failure of the whole recipient,
// wherever it stands, even where a later rule would have matched.
func TestRuleTableErrors(t *testing.T) {
	f := newFixture(t)
	s := f.service(`
table down sqlite:/mem/down
action "out" relay
match from any for domain "early.example" action "out"
match from any for domain <down> reject
match from any for any action "out"
`)
	f.table("down").fail(errDown)
	ask := func(rcpt string) string {
		return reply(s.Recipient(t.Context(), RecipientRequest{Session: Session{Socket: true, Listener: -1}, Recipient: rcpt}))
	}
	if got := ask("x@early.example"); got != "relay out x@early.example" {
		t.Errorf("rule before the table: %s", got)
	}
	if got := ask("x@other.example"); !strings.HasPrefix(got, "error:") || !strings.Contains(got, "test.conf:5") || !strings.Contains(got, "connection refused") {
		t.Errorf("table down: %s", got)
	}
	f.table("down").fail(nil)
	f.table("down").set(table.Domain, "other.example", "x")
	if got := ask("x@other.example"); got != "550 5.7.1 Invalid recipient: <x@other.example>" {
		t.Errorf("table back: %s", got)
	}
}

func TestHostileSessions(t *testing.T) {
	s := newFixture(t).service(rulesConf)
	for name, sess := range map[string]Session{
		"listener too high":  {Listener: 99},
		"listener negative":  {Listener: -5, Socket: true},
		"no socket":          {Listener: -1},
		"helo out of bounds": {Helo: strings.Repeat("x", 2000)},
	} {
		if _, err := s.Recipient(t.Context(), RecipientRequest{Session: sess, Recipient: "alice@example.org"}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// No address at all matches no network.
	got := reply(s.Recipient(t.Context(), RecipientRequest{Recipient: "x@src.example"}))
	if !strings.HasPrefix(got, "550") {
		t.Errorf("session without address: %s", got)
	}
}

func BenchmarkRecipient(b *testing.B) {
	f := newFixture(b)
	users := f.table("users")
	users.set(table.UserInfo, "alice@example.org", "", "", "")
	s := f.service(`
table users sqlite:/mem/users
table domains { "example.org", "*.example.net" }
listen on 127.0.0.1
action "local" maildir "/mail/%{dest.domain}/%{dest.user}" virtual <users> userbase <users>
action "out" relay
match from auth for any action "out"
match from local for any action "out"
match from any for domain <domains> action "local"
`)
	r := RecipientRequest{Session: session(), Sender: "a@b.example", Recipient: "alice@example.org"}
	b.ReportAllocs()
	for b.Loop() {
		if got, err := s.Recipient(b.Context(), r); err != nil || got.Code != 0 {
			b.Fatal(got, err)
		}
	}
}
