package lookup

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/table"
)

const policyConf = `
table policies sqlite:/mem/policies
table relays sqlite:/mem/relays
table anchors sqlite:/mem/anchors
action "mx" relay tls-policy <policies> ca <anchors>
action "domain" relay domain <relays> tls-policy <policies> protocols TLSv1.3 auth { l = "u:p" } insecure-auth
action "none" relay domain <relays>
match from any for any action "mx"
`

// levels are the levels of a route: that of the destination, then of each host.
func levels(r Route) string {
	var words []string
	add := func(p *TLSPolicy) {
		if p == nil {
			words = append(words, "-")
			return
		}
		_, key, _ := strings.Cut(p.Row, "> ")
		words = append(words, p.Level.String()+" "+key)
	}
	add(r.Policy)
	for _, u := range r.Hosts {
		add(u.Policy)
	}
	return strings.Join(words, ", ")
}

func TestRoutePolicy(t *testing.T) {
	f := newFixture(t)
	s := f.service(policyConf)
	policies := f.table("policies")
	for key, row := range map[string]string{
		"exact.example": "encrypt", "*.star.example": "verify", ".dot.example": "secure match=.x.example", ".deep.example": "may",
		"a.deep.example": "none", "relay.example": "fingerprint=" + strings.Repeat("ab", 32), "192.0.2.1": "verify",
		"[2001:db8::1]": "secure", "bad.example": "sometimes",
	} {
		policies.set(table.TLSPolicy, key, row)
	}
	relays := f.table("relays")
	relays.set(table.RelayHost, "exact.example", "tls://relay.example", "smtp+tls://other.example", "smtp+tls://h.star.example")
	relays.set(table.RelayHost, "literal.example", "192.0.2.1", "[2001:db8::1]", "lmtp:///socket")
	tests := []struct{ action, domain, want string }{
		{"mx", "exact.example", `encrypt "exact.example"`},
		{"mx", "EXACT.example", `encrypt "EXACT.example"`},
		{"mx", "sub.exact.example", "-"},
		{"mx", "star.example", "-"},
		{"mx", "a.star.example", `verify "*.star.example"`},
		{"mx", "a.b.star.example", `verify "*.star.example"`},
		{"mx", "a.b.dot.example", `secure ".dot.example"`},
		{"mx", "a.deep.example", `none "a.deep.example"`},
		{"mx", "b.deep.example", `may ".deep.example"`},
		{"mx", "[192.0.2.9]", "-"},
		{"domain", "exact.example", `-, fingerprint "relay.example", encrypt "exact.example", verify "*.star.example"`},
		{"domain", "literal.example", `-, verify "192.0.2.1", secure "[2001:db8::1]", -`},
		{"domain", "a.dot.example", `secure ".dot.example"`},
		{"none", "exact.example", "-, -, -, -"},
	}
	for _, tt := range tests {
		r, err := s.Route(t.Context(), RouteRequest{Action: tt.action, Domain: tt.domain})
		if got := levels(r); got != tt.want || err != nil {
			t.Errorf("%s %s: %s, %v, want %s", tt.action, tt.domain, got, err, tt.want)
		}
		if r.InsecureAuth != (tt.action == "domain") || (r.Handshake.Min != 0) != (tt.action == "domain") {
			t.Errorf("%s: options %+v", tt.action, r)
		}
	}
	if r, err := s.Route(t.Context(), RouteRequest{Action: "mx", Domain: "bad.example"}); err == nil || !strings.Contains(err.Error(), `unknown level "sometimes"`) {
		t.Errorf("bad row: %+v, %v", r, err)
	}
	policies.set(table.TLSPolicy, "*", "encrypt")
	policies.tell(table.TLSPolicy, "*")
	if r, err := s.Route(t.Context(), RouteRequest{Action: "domain", Domain: "exact.example"}); err != nil || levels(r) != tests[10].want {
		t.Errorf("the row of everything goes before that of the domain: %s, %v", levels(r), err)
	}
}

// A table that cannot be asked is no permission to send without protection.
func TestPolicyTableDown(t *testing.T) {
	f := newFixture(t)
	s := f.service(policyConf)
	ask := func(domain string) error {
		_, err := s.Route(t.Context(), RouteRequest{Action: "mx", Domain: domain})
		return err
	}
	if err := ask("known.example"); err != nil {
		t.Fatal(err)
	}
	f.table("policies").fail(errDown)
	if err := ask("new.example"); err == nil || !strings.Contains(err.Error(), "table policies") {
		t.Errorf("never asked for: %v", err)
	}
	if err := ask("known.example"); !errors.Is(err, errUnsure) {
		t.Errorf("not found before: %v", err)
	}
}

func TestVerifyOtherNames(t *testing.T) {
	f := newFixture(t)
	s := f.service(policyConf)
	root := newAuthority(t, "root", nil)
	f.table("anchors").set(table.CA, "mx.example", root.pem())
	chain := ders(root.leafOf(nil, "a.dest.example", "*.wild.example"))
	tests := []struct {
		names []string
		want  Verdict
	}{
		{nil, failed(ReasonWrongName)},
		{[]string{"a.dest.example"}, Verdict{State: Verified, Identity: "a.dest.example"}},
		{[]string{"other.example", "A.Dest.Example."}, Verdict{State: Verified, Identity: "a.dest.example"}},
		{[]string{".dest.example"}, Verdict{State: Verified, Identity: "a.dest.example"}},
		{[]string{".example"}, Verdict{State: Verified, Identity: "a.dest.example"}},
		{[]string{".a.dest.example"}, failed(ReasonWrongName)},
		{[]string{"est.example"}, failed(ReasonWrongName)},
		{[]string{"b.wild.example"}, Verdict{State: Verified, Identity: "b.wild.example"}},
		{[]string{".wild.example"}, Verdict{State: Verified, Identity: "*.wild.example"}},
		{[]string{""}, failed(ReasonWrongName)},
		{[]string{".192.0.2.1", "."}, failed(ReasonWrongName)},
		{append(slices.Repeat([]string{"x.example"}, maxNames), "a.dest.example"), failed(ReasonWrongName)},
	}
	for _, tt := range tests {
		got, err := s.Verify(t.Context(), VerifyRequest{Action: "mx", Use: UseServer, Name: "mx.example", Names: tt.names, Chain: chain})
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%.3q: %v %s", tt.names, err, diff)
		}
	}
}
