package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tabard/internal/config"
	"tabard/internal/rpc"
	"tabard/table"
)

const checkConf = `
table mail sqlite:/mem/mail
table relays sqlite:/mem/relays
table badpats { "[" }
table urls sqlite:/mem/urls
table nets { "192.0.2.0/24" }
listen on 127.0.0.1 port 25 tls pki <mail>
listen on 127.0.0.1 port 587 tls pki <mail> auth <mail> senders <mail>
action "local" maildir virtual <mail> userbase <mail>
action "smart" relay host { "smtps://ok.example" }
action "broken" relay host <urls>
action "routes" relay domain <relays> ca <mail>
match from src <nets> for domain <mail> action "local"
match from any for rcpt-to regex <badpats> action "local"
match from any for any action "smart"
table mail2 sqlite:/mem/mail2
`

func TestCheck(t *testing.T) {
	f := newFixture(t)
	chain, key := newAuthority(t, "CA", nil).server("ecdsa", nil, "mx.example.org")
	f.table("mail").set(table.Cert, "mx.example.org", chain, key)
	f.table("urls").set(table.RelayHost, "any", "gopher://x.example")
	f.table("relays").fail(errDown)
	s := f.service(checkConf)
	got := s.Check(t.Context())
	want := []string{
		"test.conf:11:1: table urls: relayhost: ",
		"test.conf:12:1: table relays: relayhost: ",
		"test.conf:14:1: table badpats: regex: ",
	}
	if len(got) != len(want) {
		t.Fatalf("problems: %v", got)
	}
	for i, p := range got {
		if !strings.HasPrefix(p.String(), want[i]) {
			t.Errorf("%s\nwant %s...", p, want[i])
		}
		if p.Warning {
			t.Errorf("%s: warning %v", p, p.Warning)
		}
	}
	f.table("mail").remove(table.Cert, "mx.example.org")
	got = s.Check(t.Context())
	if !slices.ContainsFunc(got, func(p Problem) bool {
		return p.Service == "cert" && strings.Contains(p.Cause, "no certificate") && p.Pos.Line == 7
	}) {
		t.Errorf("no certificate: %v", got)
	}
	f.table("mail").set(table.Cert, "mx.example.org", chain, "junk")
	got = s.Check(t.Context())
	if !slices.ContainsFunc(got, func(p Problem) bool { return p.Service == "table mail mx.example.org" && !p.Warning }) {
		t.Errorf("broken certificate: %v", got)
	}
}

// Rows of tls-policy that leave mail waiting are told of, where rows can be listed.
func TestCheckPolicies(t *testing.T) {
	f := newFixture(t)
	f.table("sql").set(table.TLSPolicy, "d.example", "dane")
	s := f.service(`table pol { a.example = dane, "*.b.example" = "verify", "c.example" = "sts", "e.example" = "nonsense" }
table sql sqlite:/mem/sql
action "out" relay tls-policy <pol>
action "other" relay tls-policy <sql>
match from any for any action "out"
match from any for any action "other"
`)
	var got []string
	for _, p := range s.Check(t.Context()) {
		got = append(got, fmt.Sprintf("%t %.90s", p.Warning, p))
	}
	want := []string{
		`true test.conf:3:1: table pol: tlspolicy: "a.example": level dane is not supported yet: the mail waits`,
		`true test.conf:3:1: table pol: tlspolicy: "c.example": level sts is not supported yet: the mail waits`,
		`false test.conf:3:1: table pol: tlspolicy: tlspolicy "e.example": tlspolicy: unknown level "nonsense`,
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !strings.HasPrefix(want[i], got[i]) {
			t.Fatalf("%q\nwant %q", got, want)
		}
	}
}

func TestCheckClean(t *testing.T) {
	f := newFixture(t)
	ca := newAuthority(t, "CA", nil)
	chain, key := ca.server("ecdsa", nil, "mx.example.org")
	f.table("mail").set(table.Cert, "mx.example.org", chain, key)
	f.table("mail").set(table.CA, "*", ca.pem())
	text := checkConf
	for _, line := range strings.SplitAfter(checkConf, "\n") {
		if strings.Contains(line, "urls") || strings.Contains(line, "badpats") {
			text = strings.Replace(text, line, "", 1)
		}
	}
	if got := f.service(text).Check(t.Context()); len(got) != 0 {
		t.Errorf("problems: %v", got)
	}
}

// A table that cannot be opened at start is a temporary error until it can.
func TestReopen(t *testing.T) {
	cfg, err := config.Parse("test.conf", []byte("table t sqlite:/mem/t cache off\naction \"out\" relay\nmatch from any for domain <t> action \"out\"\n"), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.table("t").set(table.Domain, "d.example", "x")
	open := f.open
	failing := true
	s, err := New(t.Context(), Options{Config: cfg, Open: func(ctx context.Context, c config.Table) (table.Backend, error) {
		if failing {
			return nil, errDown
		}
		return open(ctx, c)
	}})
	if err != nil {
		t.Fatal(err)
	}
	b := s.tables.byName["t"].Backend().(*reopening)
	now := time.Now()
	b.clock = func() time.Time { return now }
	ask := func() string {
		return reply(s.Recipient(t.Context(), RecipientRequest{Session: Session{Socket: true, Listener: -1}, Recipient: "x@d.example"}))
	}
	if got := ask(); !strings.Contains(got, "connection refused") {
		t.Errorf("down: %s", got)
	}
	failing = false
	now = now.Add(2 * reopenAfter)
	if got := ask(); got != "relay out x@d.example" {
		t.Errorf("up: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := ask(); !strings.Contains(got, "closed") {
		t.Errorf("closed: %s", got)
	}
}

func TestQuery(t *testing.T) {
	f := newFixture(t)
	s := f.service(checkConf)
	mail := f.table("mail")
	chain, key := newAuthority(t, "CA", nil).server("ecdsa", nil, "mx.example.org")
	mail.set(table.Alias, "info@x.example", "a", "b@y.example")
	mail.set(table.Credentials, "alice", "alice@x.example", horseHash)
	mail.set(table.Cert, "mx.example.org", chain, key)
	mail.set(table.DKIM, "x.example", "sel", "file:/etc/dkim/x.pem")
	mail.set(table.DKIM, "one.example", "sel:file:/etc/dkim/x.pem")
	mail.set(table.TLSPolicy, "bad.example", "nosuch")
	tests := []struct {
		table   config.TableRef
		service table.Service
		key     string
		want    Answer
	}{
		{"mail", table.Alias, "Info@x.example", Answer{Found: true, Rows: [][]string{{"a", "b@y.example"}}}},
		{"mail", table.Alias, "nobody", Answer{}},
		{"mail", table.Credentials, "alice", Answer{Found: true, Rows: [][]string{{"alice@x.example", "(hidden)"}}}},
		{"mail", table.Cert, "mx.example.org", Answer{Found: true, Rows: [][]string{{chain, "(hidden)"}}}},
		{"mail", table.DKIM, "x.example", Answer{Found: true, Rows: [][]string{{"sel", "(hidden)"}}}},
		{"mail", table.DKIM, "one.example", Answer{Found: true, Rows: [][]string{{"sel:(hidden)"}}}},
		{"nets", table.NetAddr, "192.0.2.7", Answer{Found: true}},
		{"nets", table.NetAddr, "192.0.3.7", Answer{}},
		{"nets", table.NetAddr, "", Answer{Found: true, Rows: [][]string{{"192.0.2.0/24"}}}},
		{"localhost", table.NetAddr, "local", Answer{Found: true}},
		{"localhost", table.NetAddr, "[::1]", Answer{Found: true}},
		{"localhost", table.NetAddr, "192.0.2.1", Answer{}},
		{"localnames", table.Domain, "MX.example.org", Answer{Found: true}},
		{"localnames", table.Domain, "[127.0.0.1]", Answer{Found: true}},
		{"localnames", table.Domain, "[IPv6:::1]", Answer{Found: true}},
		{"localnames", table.Domain, "[192.0.2.1]", Answer{}},
		{"localnames", table.Domain, "example.org", Answer{}},
		{"anyhost", table.NetAddr, "192.0.2.1", Answer{Found: true}},
		{"anydestination", table.Domain, "x.example", Answer{Found: true}},
		{"getpwnam", table.UserInfo, "root", Answer{Found: true, Rows: [][]string{{"0", "0", "/root"}}}},
		{"getpwnam", table.UserInfo, "no-such-user", Answer{}},
	}
	for _, tt := range tests {
		got, err := s.Query(t.Context(), QueryRequest{Table: tt.table, Service: tt.service, Key: tt.key})
		if got.Took <= 0 || got.From != FromBackend {
			t.Errorf("%s %s %s: took %v from %q", tt.table, tt.service, tt.key, got.Took, got.From)
		}
		got.Took, got.From = 0, ""
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s %s %s: %v %s", tt.table, tt.service, tt.key, err, diff)
		}
	}
	query := func(ref config.TableRef, key string, fresh bool) (Answer, error) {
		return s.Query(t.Context(), QueryRequest{Table: ref, Service: table.Alias, Key: key, Fresh: fresh})
	}
	if a, err := s.Query(t.Context(), QueryRequest{Table: "mail", Service: table.TLSPolicy, Key: "bad.example"}); err == nil || !strings.Contains(err.Error(), "table mail: tlspolicy") {
		t.Errorf("an answer that cannot be used: %+v, %v", a, err)
	}
	if _, err := query("nosuch", "x", false); err == nil {
		t.Error("no such table: no error")
	}
	if _, err := query("localhost", "x", false); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("localhost as alias: %v", err)
	}
	for _, tt := range []struct {
		fresh, down bool
		from        string
	}{{false, false, FromCache}, {true, false, FromBackend}, {false, true, FromStale}} {
		if tt.down {
			mail.fail(errDown)
		}
		if got, err := query("mail", "info@x.example", tt.fresh); err != nil || !got.Found || got.From != tt.from {
			t.Errorf("%+v: %+v, %v", tt, got, err)
		}
	}
	if _, err := query("mail", "x", false); !errors.Is(err, errDown) {
		t.Errorf("down: %v", err)
	}
	ask := QueryRequest{Table: "mail2", Service: table.Credentials, Key: "alice", Password: "wrong"}
	f.table("mail2").set(table.Credentials, "alice", "alice@x.example", horseHash)
	if got, err := s.Query(t.Context(), ask); err != nil || got.Found {
		t.Errorf("wrong password: %+v, %v", got, err)
	}
	ask.Password = "correct horse"
	if got, err := s.Query(t.Context(), ask); err != nil || !got.Found || got.Rows != nil {
		t.Errorf("right password: %+v, %v", got, err)
	}
}

// What the command line asks of a running server goes through rpc.
func TestAdminEdge(t *testing.T) {
	f := newFixture(t)
	s := f.service("table mail sqlite:/mem/mail\ntable raw sqlite:/mem/raw cache off\ntable list { a }\nmatch from any reject\n")
	mail := f.table("mail")
	mail.set(table.Alias, "info", "a")
	srv := rpc.NewServer()
	if err := RegisterAdmin(srv, s); err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	go func() { _ = srv.Serve(t.Context(), a) }()
	client := rpc.NewClient(b)
	t.Cleanup(func() { client.Close() })
	admin := NewAdmin(client)
	for _, from := range []string{FromBackend, FromCache} {
		got, err := admin.Query(t.Context(), QueryRequest{Table: "mail", Service: table.Alias, Key: "info"})
		if err != nil || got.From != from || len(got.Rows) != 1 || got.Rows[0][0] != "a" {
			t.Errorf("query: %+v, %v; want it from the %s", got, err, from)
		}
	}
	infos, err := admin.Tables(t.Context())
	if err != nil || len(infos) != 3 || infos[0].Name != "mail" || infos[0].Cache == nil || infos[0].Cache.Hits != 1 || infos[1].Cache != nil || infos[2].Kind != "static" {
		t.Errorf("tables: %+v, %v", infos, err)
	}
	last, err := admin.Changes(t.Context(), ChangesRequest{Table: "mail", Now: true})
	if err != nil || len(last) != 1 || last[0].Seq == 0 {
		t.Fatalf("last change: %+v, %v", last, err)
	}
	mail.set(table.Alias, "info", "b")
	got, err := admin.Changes(t.Context(), ChangesRequest{Table: "mail", After: last[0].Seq})
	if err != nil || len(got) != 1 || got[0].Service != "alias" || got[0].Key != "info" {
		t.Errorf("changes: %+v, %v", got, err)
	}
	for _, ref := range []config.TableRef{"raw", "list", "nosuch"} {
		if got, err := admin.Changes(t.Context(), ChangesRequest{Table: ref}); err == nil {
			t.Errorf("changes of %s: %+v, no error", ref, got)
		}
	}
}
