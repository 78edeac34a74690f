package lookup

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tabard/internal/rpc"
	"tabard/table"
)

const explainConf = `
table ours { "example.org" }
table nets { "192.0.2.0/24" }
table aliases sqlite:/mem/aliases
table users sqlite:/mem/users
table relays sqlite:/mem/relays
table logins sqlite:/mem/logins
table maysend sqlite:/mem/maysend
pki mx.example.org cert /c key /k
listen on 192.0.2.25 port 25 tag "mx"
listen on 192.0.2.25 port 587 tls-require pki mx.example.org auth <users> senders <maysend>
action "box" maildir "/mail/%{user.username}" alias <aliases> userbase <users>
action "out" relay domain <relays> auth <logins>
match from src <nets> helo "bad.example" for any reject
match from any for domain <ours> action "box"
match from any for domain { "a.example", "b.example" } !tls action "out"
match from local for any action "out"
match from auth for any action "out"
match from any for domain "v.example" tls verified action "out"
`

func explainFixture(t *testing.T) (*fixture, *Service) {
	f := newFixture(t)
	s := f.service(explainConf)
	f.table("users").set(table.UserInfo, "alice", "1000", "1000", "/home/alice")
	f.table("aliases").set(table.Alias, "list", "alice", "bob@far.example", "carol")
	f.table("aliases").set(table.Alias, "carol", "list", "bob@far.example", "alice")
	f.table("maysend").set(table.MailAddrMap, "alice", "alice@example.org")
	f.table("relays").set(table.RelayHost, "far.example", "tls://isp@relay.example:587")
	f.table("relays").set(table.RelayHost, "nologin.example", "tls://none@relay.example:587")
	f.table("logins").set(table.Credentials, "isp", "customer", "SECRET")
	return f, s
}

// text is an explanation in short.
func text(e Explanation) string {
	var b strings.Builder
	for _, s := range e.Steps {
		fmt.Fprintf(&b, "%d<%d %s%s %s\n", s.Number, s.Parent, s.Address, s.User, s.Note)
		for _, r := range s.Rules {
			fmt.Fprintf(&b, "  rule %s %v %s|%s|%s|%s\n", r.Rule[strings.IndexByte(r.Rule, ':')+1:], r.Fits, r.Action, r.Condition, r.Value, r.Fault)
		}
		for _, a := range s.Answers {
			fmt.Fprintf(&b, "  %s %s %s %v %v %s\n", a.Table, a.Service, a.Key, a.Found, a.Rows, a.Fault)
		}
		for _, t := range s.Targets {
			fmt.Fprintf(&b, "  -> %s %s %s\n", t.Action, t.Address, t.User)
		}
	}
	for _, l := range e.Local {
		fmt.Fprintf(&b, "local %s %s %s %s\n", l.Target.User, l.Method, l.Place, l.Fault)
	}
	fmt.Fprintf(&b, "%d %s %s|%s|%s", e.Reply.Code, e.Reply.Enhanced, e.Reply.Text, e.Cause, e.Fault)
	return b.String()
}

func wantLines(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+got+"\n", "\n"+line+"\n") {
			t.Errorf("no line %q in:\n%s", line, got)
		}
	}
}

// The rules passed over say why, and the alias tree is told as it was walked.
func TestExplain(t *testing.T) {
	_, s := explainFixture(t)
	e, err := s.Explain(t.Context(), ExplainRequest{Sender: "alice@example.org", Recipient: "list@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	got := text(e)
	wantLines(t, got,
		"1<0 list@example.org ",
		"  rule 14:1 false |from src <nets>|local|",
		"  rule 15:1 true box|||",
		"2<1 list ",
		"  <aliases> alias list true [[alice bob@far.example carol]] ",
		"3<2 alice ",
		"  <aliases> alias alice false [] ",
		"  -> box list@example.org alice",
		"4<2 bob@far.example ",
		"  rule 16:1 false |for domain { a.example, b.example }|far.example|",
		"  rule 17:1 true out|||",
		"  -> out bob@far.example ",
		"6<5 list seen before",
		"local alice maildir /mail/alice ",
		"0  ||",
	)
	if e.Session != "the local socket" || len(e.Reply.Targets) != 2 {
		t.Errorf("session %q, targets %v", e.Session, e.Reply.Targets)
	}
	// It is what a session would be told.
	reply, err := s.Recipient(t.Context(), RecipientRequest{Session: Session{Socket: true, Listener: -1}, Sender: "alice@example.org", Recipient: "list@example.org"})
	reply.Match, reply.Expand = e.Reply.Match, e.Reply.Expand // how long it took
	if err != nil || fmt.Sprint(reply) != fmt.Sprint(e.Reply) {
		t.Errorf("a session gets %v, %v; explained was %v", reply, err, e.Reply)
	}
}

// The session that a request describes is judged as one from the network.
func TestExplainSessions(t *testing.T) {
	f, s := explainFixture(t)
	client := netip.MustParseAddr("192.0.2.7")
	tests := []struct {
		name  string
		r     ExplainRequest
		lines []string
	}{
		{"relaying denied", ExplainRequest{Client: client, Recipient: "x@far.example"},
			[]string{"  rule 14:1 false |helo bad.example||", "  rule 17:1 false |from local|192.0.2.7|", "  rule 18:1 false |from auth||",
				"550 5.7.1 Invalid recipient: <x@far.example>: relaying denied||"}},
		{"reject", ExplainRequest{Client: client, Helo: "bad.example", Recipient: "x@far.example"},
			[]string{"  rule 14:1 true |||", "550 5.7.1 Invalid recipient: <x@far.example>||"}},
		{"negated", ExplainRequest{Client: client, TLS: true, Recipient: "x@a.example"}, []string{"  rule 16:1 false |!tls|tls|"}},
		{"verified", ExplainRequest{Client: client, Verified: true, Recipient: "x@v.example"}, []string{"  rule 19:1 true out|||"}},
		{"not verified", ExplainRequest{Client: client, TLS: true, Recipient: "x@v.example"}, []string{"  rule 19:1 false |tls verified|tls|"}},
		{"needs TLS", ExplainRequest{User: "alice", Recipient: "x@far.example"}, []string{"530 5.7.0 the listener takes mail over TLS only (--tls)||"}},
		{"needs a login", ExplainRequest{Listener: "587", TLS: true, Recipient: "x@far.example"}, []string{"530 5.7.0 the listener takes mail of authenticated clients only (--auth)||"}},
		{"sender", ExplainRequest{User: "alice", TLS: true, Sender: "bob@example.org", Recipient: "x@far.example"},
			[]string{"550 5.7.1 Sender rejected: <bob@example.org> is not among the senders of alice in table maysend||"}},
		{"user", ExplainRequest{User: "alice", TLS: true, Sender: "alice@example.org", Recipient: "x@far.example"},
			[]string{"  rule 18:1 true out|||", "0  ||"}},
		{"unknown user", ExplainRequest{Recipient: "nobody@example.org"}, []string{"  <users> userinfo nobody false [] ", "550 5.1.1 Invalid recipient: <nobody@example.org>||"}},
		{"member unknown", ExplainRequest{Recipient: "bad@example.org"}, []string{"550 5.1.1 Invalid recipient: <bad@example.org>|ghost: no such user|"}},
		{"malformed", ExplainRequest{Recipient: "a b@example.org"}, []string{"553 5.1.3 Invalid recipient: <a b@example.org>||"}},
	}
	f.table("aliases").set(table.Alias, "bad", "ghost")
	for _, tt := range tests {
		e, err := s.Explain(t.Context(), tt.r)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		wantLines(t, text(e), tt.lines...)
	}
	for listener, want := range map[string]string{"mx": ":25 ", "25": ":25 ", "smtp": ":25 ", "192.0.2.25": ":25 ", "192.0.2.25:587": ":587 ", "submission": ":587 "} {
		if e, err := s.Explain(t.Context(), ExplainRequest{Listener: listener, Recipient: "x@y.example"}); err != nil || !strings.Contains(e.Session, want) {
			t.Errorf("listener %s: %q, %v", listener, e.Session, err)
		}
	}
	if _, err := s.Explain(t.Context(), ExplainRequest{Listener: "nosuch", Recipient: "x@y.example"}); !errors.Is(err, rpc.ErrInvalid) || !strings.HasSuffix(err.Error(), "192.0.2.25:587") {
		t.Errorf("unknown listener: %v", err)
	}
}

// The local socket is no listener for a session from the network.
func TestExplainSocketIsNoListener(t *testing.T) {
	s := newFixture(t).service("listen on socket tag \"here\"\nlisten on 192.0.2.25\naction \"out\" relay\nmatch from any for any action \"out\"\n")
	e, err := s.Explain(t.Context(), ExplainRequest{Helo: "mx.example.net", Recipient: "x@y.example"})
	if err != nil || !strings.Contains(e.Session, "192.0.2.25:25") {
		t.Errorf("%q, %v", e.Session, err)
	}
}

// A table that is down is named, by the rule or the step that asked it.
func TestExplainTableDown(t *testing.T) {
	f, s := explainFixture(t)
	f.table("aliases").fail(errDown)
	e, err := s.Explain(t.Context(), ExplainRequest{Recipient: "list@example.org"})
	got := text(e)
	if err != nil || !strings.Contains(e.Fault, `table aliases: alias "list": connection refused`) || len(e.Reply.Targets) != 0 {
		t.Errorf("%v\n%s", err, got)
	}
	wantLines(t, got, `  <aliases> alias list false [] table aliases: alias "list": connection refused`)
	f.table("relays").fail(errDown)
	if _, err := s.Route(t.Context(), RouteRequest{Action: "out", Domain: "far.example", Explain: true}); err == nil || !strings.Contains(err.Error(), "table relays") {
		t.Errorf("route: %v", err)
	}
}

// A route tells its rows, and no password.
func TestExplainRoute(t *testing.T) {
	_, s := explainFixture(t)
	r, err := s.Route(t.Context(), RouteRequest{Action: "out", Domain: "far.example", Explain: true})
	want := `[{<relays> relayhost far.example true [[tls://isp@relay.example:587]] } {<logins> credentials isp true [[customer (hidden)]] }]`
	if fmt.Sprint(r.Answers) != want || err != nil {
		t.Errorf("%v %v\nwant %s", err, r.Answers, want)
	}
	r, err = s.Route(t.Context(), RouteRequest{Action: "out", Domain: "nologin.example", Explain: true})
	if last := r.Answers[len(r.Answers)-1]; err != nil || last.Found || last.Key != "none" {
		t.Errorf("%v %v", err, r.Answers)
	}
	if r, err := s.Route(t.Context(), RouteRequest{Action: "out", Domain: "other.example", Explain: true}); err != nil || len(r.Answers) != 3 || len(r.Hosts) != 0 {
		t.Errorf("no row: %v %v", err, r.Answers)
	}
	if r, _ := s.Route(t.Context(), RouteRequest{Action: "out", Domain: "far.example"}); r.Answers != nil {
		t.Errorf("not asked for: %v", r.Answers)
	}
}

// However large an expansion is, what is told of it is bounded.
func TestExplainBounded(t *testing.T) {
	f, s := explainFixture(t)
	members := make([]string, 7000)
	for i := range members {
		members[i] = fmt.Sprintf("member-%d-%s@far.example", i, strings.Repeat("x", 30))
	}
	f.table("aliases").set(table.Alias, "big", members...)
	e, err := s.Explain(t.Context(), ExplainRequest{Recipient: "big@example.org"})
	out, _ := json.Marshal(e)
	if err != nil || !e.Cut || len(out) > 1<<20 || len(e.Reply.Targets) != maxShownTargets {
		t.Errorf("%v, cut %v, %d bytes, %d targets", err, e.Cut, len(out), len(e.Reply.Targets))
	}
}
