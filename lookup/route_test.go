package lookup

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/table"
)

const routeConf = `
table relays sqlite:/mem/relays
table bysender sqlite:/mem/bysender
table hosts { "smtps://one.example", "tls://label@two.example:26", "[192.0.2.1]" }
table logins sqlite:/mem/logins
table addrs { "192.0.2.1", "2001:db8::1" }
table heloes { "192.0.2.1" = "one.example.org" }
table certs sqlite:/mem/certs
action "mx" relay
action "smart" relay host <hosts> auth <logins>
action "one" relay host "smtp+tls://relay.example"
action "domain" relay domain <relays>
action "both" relay domain <relays> sender <bysender>
action "bysender" relay sender <bysender>
action "tls" relay tls no-verify helo "helo.example" mail-from "bounce@example.org" pki <certs>
action "backup" relay backup
action "backupmx" relay backup mx "mx2.example.org"
action "src" relay src <addrs> helo-src <heloes>
action "local" maildir
match from any for any action "mx"
`

func TestRoute(t *testing.T) {
	f := newFixture(t)
	s := f.service(routeConf)
	f.table("relays").set(table.RelayHost, "dest.example", "smtps://a.example", "smtp+tls://b.example:2525")
	f.table("relays").set(table.RelayHost, "*.wild.example", "tls://w.example")
	f.table("relays").set(table.RelayHost, "broken.example", "gopher://x.example")
	f.table("bysender").set(table.RelayHost, "me@s.example", "tls://mine.example")
	f.table("bysender").set(table.RelayHost, "@s.example", "tls://theirs.example")
	f.table("bysender").set(table.RelayHost, "@", "smtp://null.example")
	helo := "mx.example.org"
	tests := []struct {
		name string
		req  RouteRequest
		want Route
	}{
		{"bounce without an action", RouteRequest{Domain: "x.example"}, Route{Helo: helo}},
		{"mx", RouteRequest{Action: "mx", Domain: "x.example"}, Route{Helo: helo}},
		{"host", RouteRequest{Action: "one", Domain: "x.example"}, Route{Helo: helo, Hosts: []RelayURL{{Scheme: SchemeSMTPTLS, Host: "relay.example", Port: "25"}}}},
		{"domain", RouteRequest{Action: "domain", Domain: "dest.example"}, Route{Helo: helo,
			Hosts: []RelayURL{{Scheme: SchemeSMTPS, Host: "a.example", Port: "465"}, {Scheme: SchemeSMTPTLS, Host: "b.example", Port: "2525"}}}},
		{"domain wildcard", RouteRequest{Action: "domain", Domain: "a.wild.example"}, Route{Helo: helo, Hosts: []RelayURL{{Scheme: SchemeTLS, Host: "w.example", Port: "25"}}}},
		{"domain without a row goes by MX", RouteRequest{Action: "domain", Domain: "other.example"}, Route{Helo: helo}},
		{"sender", RouteRequest{Action: "bysender", Sender: "Me+tag@S.example", Domain: "x.example"}, Route{Helo: helo, Hosts: []RelayURL{{Scheme: SchemeTLS, Host: "mine.example", Port: "25"}}}},
		{"sender's domain", RouteRequest{Action: "bysender", Sender: "you@s.example", Domain: "x.example"}, Route{Helo: helo, Hosts: []RelayURL{{Scheme: SchemeTLS, Host: "theirs.example", Port: "25"}}}},
		{"null sender", RouteRequest{Action: "bysender", Domain: "x.example"}, Route{Helo: helo, Hosts: []RelayURL{{Scheme: SchemeSMTP, Host: "null.example", Port: "25"}}}},
		{"other sender", RouteRequest{Action: "bysender", Sender: "x@z.example", Domain: "x.example"}, Route{Helo: helo}},
		{"destination before sender", RouteRequest{Action: "both", Sender: "me@s.example", Domain: "a.wild.example"}, Route{Helo: helo, Hosts: []RelayURL{{Scheme: SchemeTLS, Host: "w.example", Port: "25"}}}},
		{"sender after destination", RouteRequest{Action: "both", Sender: "me@s.example", Domain: "z.example"}, Route{Helo: helo, Hosts: []RelayURL{{Scheme: SchemeTLS, Host: "mine.example", Port: "25"}}}},
		{"options", RouteRequest{Action: "tls", Domain: "x.example"}, Route{Helo: "helo.example", TLS: true, NoVerify: true, Present: true, MailFrom: "bounce@example.org"}},
		{"backup", RouteRequest{Action: "backup", Domain: "x.example"}, Route{Helo: helo, BackupMX: helo}},
		{"backup mx", RouteRequest{Action: "backupmx", Domain: "x.example"}, Route{Helo: helo, BackupMX: "mx2.example.org"}},
	}
	for _, tt := range tests {
		got, err := s.Route(t.Context(), tt.req)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	for name, req := range map[string]RouteRequest{
		"broken URL": {Action: "domain", Domain: "broken.example"}, "no action": {Action: "nosuch"}, "local action": {Action: "local"},
		"long": {Action: "mx", Domain: strings.Repeat("x", 5000)},
	} {
		if got, err := s.Route(t.Context(), req); err == nil {
			t.Errorf("%s: %+v, no error", name, got)
		}
	}
	if _, err := s.Route(t.Context(), RouteRequest{Action: "domain", Domain: "broken.example"}); !strings.Contains(err.Error(), "table relays") || !strings.Contains(err.Error(), "broken.example") {
		t.Errorf("error names neither table nor key: %v", err)
	}
	f.table("relays").fail(errDown)
	if got, err := s.Route(t.Context(), RouteRequest{Action: "domain", Domain: "other.example"}); err == nil {
		t.Errorf("table down: %+v, no error", got)
	}
}

// The hosts of a list take turns in being first, and keep their order.
func TestRouteRotates(t *testing.T) {
	s := newFixture(t).service(routeConf)
	first := map[string]int{}
	for range 6 {
		r, err := s.Route(t.Context(), RouteRequest{Action: "smart", Domain: "x.example"})
		if err != nil || len(r.Hosts) != 3 {
			t.Fatalf("%+v, %v", r, err)
		}
		first[r.Hosts[0].Host+" then "+r.Hosts[1].Host]++
	}
	want := map[string]int{"192.0.2.1 then one.example": 2, "one.example then two.example": 2, "two.example then 192.0.2.1": 2}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
}

// Priorities rule; of one priority, each host comes first as often as its weight
// says, and one of weight 0 only after the others.
func TestRouteWeights(t *testing.T) {
	f := newFixture(t)
	s := f.service(routeConf)
	f.table("relays").set(table.RelayHost, "w.example",
		"tls://late.example", "20", "1", "tls://spare.example", "10", "0", "tls://often.example", "10", "3", "tls://seldom.example", "10", "1")
	f.table("relays").set(table.RelayHost, "written.example", "tls://b.example 2, tls://a.example 1, tls://c.example 2")
	first := map[string]int{}
	for range 2000 {
		r, err := s.Route(t.Context(), RouteRequest{Action: "domain", Domain: "w.example"})
		if err != nil || len(r.Hosts) != 4 || r.Hosts[2].Host != "spare.example" || r.Hosts[3].Host != "late.example" {
			t.Fatalf("%+v, %v", r.Hosts, err)
		}
		first[r.Hosts[0].Host]++
	}
	if n := first["often.example"]; n < 1350 || n > 1650 {
		t.Errorf("of 2000, %v came first; want 3 to 1", first)
	}
	r, err := s.Route(t.Context(), RouteRequest{Action: "domain", Domain: "written.example"})
	if err != nil || r.Hosts[0].Host+r.Hosts[1].Host+r.Hosts[2].Host != "a.exampleb.examplec.example" {
		t.Errorf("%+v, %v", r.Hosts, err)
	}
}

// A list that all domains share cannot lead to each domain's own hosts, unless it
// is known beforehand.
func TestRouteHostsByDomain(t *testing.T) {
	f := newFixture(t)
	s := f.service(`
table relays sqlite:/mem/relays
action "static" relay host { "backup://mx2.example", "tls://a.example" }
action "table" relay host <relays>
action "plain" relay host "tls+mx://provider.example"
match for any action "static"
`)
	f.table("relays").set(table.RelayHost, "*", "tls+mx://")
	infos, _ := s.Actions(t.Context())
	if infos[0].Host || !infos[1].Host || !infos[2].Host {
		t.Errorf("%+v", infos)
	}
	if r, err := s.Route(t.Context(), RouteRequest{Action: "static", Domain: "x.example"}); err != nil || len(r.Hosts) != 2 {
		t.Errorf("static: %+v, %v", r, err)
	}
	if _, err := s.Route(t.Context(), RouteRequest{Action: "table", Domain: "x.example"}); err == nil || !strings.Contains(err.Error(), "use `domain` or `backup`") {
		t.Errorf("table: %v", err)
	}
	r, err := s.Route(t.Context(), RouteRequest{Action: "plain", Domain: "x.example"})
	if want := (RelayURL{Scheme: SchemeTLS, Host: "provider.example", Port: "25", MX: true}); err != nil || r.Hosts[0] != want {
		t.Errorf("plain: %+v, %v", r, err)
	}
}

func TestRouteSource(t *testing.T) {
	s := newFixture(t).service(routeConf)
	v4, v6 := RouteSource{"192.0.2.1", "one.example.org"}, RouteSource{"2001:db8::1", "mx.example.org"}
	for _, want := range []Route{
		{Source: v4.Address, Helo: v4.Helo, Sources: []RouteSource{v4, v6}},
		{Source: v6.Address, Helo: v6.Helo, Sources: []RouteSource{v6, v4}},
	} {
		got, err := s.Route(t.Context(), RouteRequest{Action: "src", Domain: "x.example"})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	}
}

func TestRelayCredentials(t *testing.T) {
	f := newFixture(t)
	s := f.service(routeConf)
	f.table("logins").set(table.Credentials, "label", "me", "secret:with:colons")
	f.table("logins").set(table.Credentials, "one", "you:pass")
	f.table("logins").set(table.Credentials, "oauth", "us", "{xoauth2}ya29.a-b")
	f.table("logins").set(table.Credentials, "bare", "us", "{XOAUTH2}")
	f.table("logins").set(table.Credentials, "plain", "us", "{PLAIN}pw")
	f.table("logins").set(table.Credentials, "hash", "alice", horseHash)
	for label, want := range map[string]Credentials{
		"label": {User: "me", Password: "secret:with:colons"}, "LABEL": {User: "me", Password: "secret:with:colons"},
		"one": {User: "you", Password: "pass"}, "oauth": {User: "us", Token: "ya29.a-b"}, "plain": {User: "us", Password: "pw", Plain: true},
	} {
		if got, err := s.RelayCredentials(t.Context(), CredentialsRequest{"smart", label}); got != want || err != nil {
			t.Errorf("%s: %+v, %v", label, got, err)
		}
	}
	for name, r := range map[string]CredentialsRequest{
		"no row": {"smart", "nosuch"}, "no auth table": {"mx", "label"}, "no action": {"", "label"}, "no label": {"smart", ""},
		"a login's hash": {"smart", "hash"}, "no token": {"smart", "bare"}, "line end": {"smart", "label\n"},
	} {
		got, err := s.RelayCredentials(t.Context(), r)
		if err == nil || got != (Credentials{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), horseHash) {
			t.Errorf("%s: the error tells the hash", name)
		}
	}
}

func TestConnect(t *testing.T) {
	f := newFixture(t)
	s := f.service(`
table names { "192.0.2.1" = "one.example.org", "[2001:db8::1]" = "six.example.org" }
table down sqlite:/mem/down
listen on 127.0.0.1 port 25
listen on 127.0.0.1 port 26 hostname "own.example.org"
listen on 127.0.0.1 port 27 hostname "own.example.org" hostnames <names>
listen on 127.0.0.1 port 28 hostnames <down>
action "out" relay
match for any action "out"
`)
	f.table("down").fail(errDown)
	tests := []struct {
		listener    int
		local, want string
	}{
		{0, "192.0.2.1:25", "mx.example.org"}, {1, "192.0.2.1:25", "own.example.org"}, {2, "192.0.2.1:25", "one.example.org"},
		{2, "[2001:db8::1]:25", "six.example.org"}, {2, "192.0.2.2:25", "own.example.org"},
	}
	for _, tt := range tests {
		r, err := s.Connect(t.Context(), ConnectRequest{Listener: tt.listener, Local: netip.MustParseAddrPort(tt.local)})
		if r.Hostname != tt.want || r.RDNS != "<unknown>" || err != nil {
			t.Errorf("%+v: %+v, %v", tt, r, err)
		}
	}
	if _, err := s.Connect(t.Context(), ConnectRequest{Listener: 3, Local: netip.MustParseAddrPort("192.0.2.1:1")}); err == nil {
		t.Error("table down: no error")
	}
	if _, err := s.Connect(t.Context(), ConnectRequest{Listener: 9}); err == nil {
		t.Error("unknown listener: no error")
	}
}
