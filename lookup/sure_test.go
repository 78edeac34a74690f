package lookup

import (
	"errors"
	"strings"
	"testing"

	"tabard/table"
)

// While a table is down, what is known of it serves; nothing is denied for good
// by what it does not know.
func TestTableDownAfterItWasAsked(t *testing.T) {
	f := newFixture(t)
	s := f.service(`
table users sqlite:/mem/users
table relays sqlite:/mem/relays
action "in" maildir userbase <users>
action "out" relay domain <relays>
match from any for domain "x.example" action "in"
match from any for domain "*.example" action "out"
`)
	users, relays := f.table("users"), f.table("relays")
	users.set(table.UserInfo, "alice", "", "", "/var/mail/alice")
	relays.set(table.RelayHost, "y.example", "tls://smart.example")
	rcpt := func(to string) string {
		return reply(s.Recipient(t.Context(), RecipientRequest{Session: Session{Socket: true, Listener: -1}, Recipient: to}))
	}
	deliver := func(user string) (Delivery, error) {
		return s.Delivery(t.Context(), DeliveryRequest{Action: "in", User: user, Address: user + "@x.example"})
	}
	route := func(domain string) (Route, error) {
		return s.Route(t.Context(), RouteRequest{Action: "out", Domain: domain})
	}
	if got := rcpt("bob@x.example"); !strings.HasPrefix(got, "550 5.1.1") {
		t.Fatalf("bob: %s", got)
	}
	if got := rcpt("alice@x.example"); got != "local in alice@x.example alice" {
		t.Fatalf("alice: %s", got)
	}
	if d, err := deliver("bob"); err != nil || !d.Gone {
		t.Fatalf("bob: %+v, %v", d, err)
	}
	for _, domain := range []string{"y.example", "z.example"} {
		if _, err := route(domain); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []*memory{users, relays} {
		m.fail(errDown)
	}
	if got := rcpt("alice@x.example"); got != "local in alice@x.example alice" {
		t.Errorf("alice while down: %s", got)
	}
	if got := rcpt("bob@x.example"); !strings.Contains(got, errUnsure.Error()) {
		t.Errorf("bob while down: %s", got)
	}
	if got := rcpt("new@x.example"); !strings.Contains(got, "connection refused") {
		t.Errorf("a user never asked for, while down: %s", got)
	}
	if d, err := deliver("alice"); err != nil || d.Gone {
		t.Errorf("delivery to alice while down: %+v, %v", d, err)
	}
	if d, err := deliver("bob"); !errors.Is(err, errUnsure) {
		t.Errorf("delivery to bob while down: %+v, %v", d, err)
	}
	if r, err := route("y.example"); err != nil || len(r.Hosts) != 1 {
		t.Errorf("known route while down: %+v, %v", r, err)
	}
	if r, err := route("z.example"); !errors.Is(err, errUnsure) {
		t.Errorf("no route while down: %+v, %v", r, err)
	}
}
