package lookup

import (
	"slices"
	"strings"
	"testing"

	"tabard/internal/config"
	"tabard/table"
)

const deliveryConf = `
table users sqlite:/mem/users cache off
mda wrapper nice "nice -n 10 %{mda}"
action "home" maildir userbase <users>
action "tree" maildir "/mail/%{dest.domain}/%{dest.user:strip|lowercase}" junk userbase <users>
action "deep" maildir "/mail/%{dest.user[0]}/%{dest.user[1]}/%{dest.user}" userbase <users>
action "rel" maildir "%{dest.user}/mail" userbase <users>
action "lmtp" lmtp "/run/%{dest.domain}.sock" rcpt-to userbase <users>
action "net" lmtp "lmtp.%{dest.domain}:24" userbase <users>
action "mda" mda "deliver -f %{sender} -- %{dest.user}" wrapper nice userbase <users>
action "mbox" mbox userbase <users>
action "as" maildir "~/%{dest.user}" userbase <users> user "vmail"
action "out" relay
match from any for any action "home"
`

func TestDelivery(t *testing.T) {
	f := newFixture(t)
	f.ownUID = 1234
	s := f.service(deliveryConf)
	f.table("users").set(table.UserInfo, "alice", "1000:1001:/home/alice")
	f.table("users").set(table.UserInfo, "alice@x.example", "", "", "")
	f.table("users").set(table.UserInfo, "own", "1234:1234:/home/own")
	f.table("users").set(table.UserInfo, "root", "0:0:/root")
	f.table("users").set(table.UserInfo, "vmail", "5000:5000:/var/vmail")
	f.table("users").set(table.UserInfo, "odd", "x:y:z")
	req := func(action, user, address string) DeliveryRequest {
		return DeliveryRequest{Action: action, User: user, Address: address, Recipient: "orig@x.example", Sender: "s@y.example"}
	}
	tests := []struct {
		name string
		req  DeliveryRequest
		want Delivery
		err  string
	}{
		{"home", req("home", "alice", "alice@x.example"),
			Delivery{UID: 1000, GID: 1001, Home: "/home/alice", User: "alice", Method: "maildir", Path: "/home/alice/Maildir"}, ""},
		{"tree", req("tree", "alice@x.example", "Alice+tag@x.example"),
			Delivery{UID: -1, GID: -1, User: "alice@x.example", Method: "maildir", Path: "/mail/x.example/alice", Junk: true}, ""},
		{"traversal", req("tree", "alice", `"../../etc"@x.example`),
			Delivery{UID: 1000, GID: 1001, Home: "/home/alice", User: "alice", Method: "maildir", Path: "/mail/x.example/:.:..:etc", Junk: true}, ""},
		{"deep", req("deep", "alice", "alice@x.example"),
			Delivery{UID: 1000, GID: 1001, Home: "/home/alice", User: "alice", Method: "maildir", Path: "/mail/a/l/alice"}, ""},
		{"too short for the path", req("deep", "alice", "a@x.example"), Delivery{}, "no characters [1:1]"},
		{"relative", req("rel", "alice", "alice@x.example"), Delivery{}, "not absolute"},
		{"no home", req("home", "alice@x.example", "alice@x.example"), Delivery{}, "no home directory"},
		{"lmtp socket", req("lmtp", "alice", "alice@x.example"),
			Delivery{UID: 1000, GID: 1001, Home: "/home/alice", User: "alice", Method: "lmtp", LMTP: "/run/x.example.sock", RcptTo: true}, ""},
		{"lmtp net", req("net", "alice", "alice@x.example"),
			Delivery{UID: 1000, GID: 1001, Home: "/home/alice", User: "alice", Method: "lmtp", LMTP: "lmtp.x.example:24"}, ""},
		{"mbox", req("mbox", "alice", "alice@x.example"),
			Delivery{UID: 1000, GID: 1001, Home: "/home/alice", User: "alice", Method: "mbox", Path: "/var/mail/alice"}, ""},
		{"own uid", req("home", "own", "own@x.example"),
			Delivery{UID: -1, GID: -1, Home: "/home/own", User: "own", Method: "maildir", Path: "/home/own/Maildir"}, ""},
		{"as another user", req("as", "alice", "alice@x.example"),
			Delivery{UID: 5000, GID: 5000, Home: "/var/vmail", User: "vmail", Method: "maildir", Path: "/var/vmail/alice"}, ""},
		{"as another user, gone", req("as", "bob", "bob@x.example"), Delivery{Gone: true, Text: `user "bob" does not exist any more`}, ""},
		{"root", req("home", "root", "root@x.example"), Delivery{}, "not delivered as root"},
		{"user gone", req("home", "bob", "bob@x.example"), Delivery{Gone: true, Text: `user "bob" does not exist any more`}, ""},
		{"no user", req("home", "", "bob@x.example"), Delivery{Gone: true, Text: "no such user"}, ""},
		{"action gone", req("old", "alice", "alice@x.example"), Delivery{}, "not configured any more"},
		{"action relays", req("out", "alice", "alice@x.example"), Delivery{}, "does not deliver locally any more"},
		{"broken row", req("home", "odd", "odd@x.example"), Delivery{}, "userinfo"},
	}
	for _, tt := range tests {
		got, err := s.Delivery(t.Context(), tt.req)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %+v, %v; want error %q", tt.name, got, err, tt.err)
			}
			continue
		}
		if err != nil || !sameDelivery(got, tt.want) {
			t.Errorf("%s: %+v, %v\nwant %+v", tt.name, got, err, tt.want)
		}
	}
	if got, err := s.Delivery(t.Context(), req("home", "alice", "alice+lists@x.example")); err != nil || !slices.Contains(got.Env, "EXTENSION=lists") {
		t.Errorf("the maildir's folder is not told: %+v, %v", got, err)
	}
	f.table("users").fail(errDown)
	if got, err := s.Delivery(t.Context(), req("home", "alice", "alice@x.example")); err == nil || got.Gone {
		t.Errorf("table down: %+v, %v", got, err)
	}
}

func sameDelivery(a, b Delivery) bool {
	a.Env, b.Env = nil, nil
	return slices.Equal([]any{a.Gone, a.Text, a.UID, a.GID, a.Home, a.User, a.Method, a.Path, a.Junk, a.LMTP, a.RcptTo, a.Command},
		[]any{b.Gone, b.Text, b.UID, b.GID, b.Home, b.User, b.Method, b.Path, b.Junk, b.LMTP, b.RcptTo, b.Command})
}

func TestDeliveryMDA(t *testing.T) {
	f := newFixture(t)
	s := f.service(deliveryConf)
	f.table("users").set(table.UserInfo, "alice", "1000:1001:/home/alice")
	d, err := s.Delivery(t.Context(), DeliveryRequest{
		Action: "mda", User: "alice", Address: "alice+x@d.example", Recipient: "info@d.example", Sender: `"a;rm -rf /;"@y.example`,
	})
	if err != nil || d.Command != "nice -n 10 deliver -f a:rm:-rf:/:@y.example -- alice+x" {
		t.Errorf("command %q, %v", d.Command, err)
	}
	for _, want := range []string{
		"DOMAIN=d.example", "HOME=/home/alice", "RECIPIENT=alice+x@d.example", "ORIGINAL_RECIPIENT=info@d.example", "SHELL=/bin/sh",
		"LOCAL=alice+x", "LOGNAME=alice", "USER=alice", `SENDER="a;rm -rf /;"@y.example`, "EXTENSION=x",
	} {
		if !slices.Contains(d.Env, want) {
			t.Errorf("no %s in %q", want, d.Env)
		}
	}
	d, err = s.Delivery(t.Context(), DeliveryRequest{Action: "mda", User: "alice", Address: "alice@d.example"})
	if err != nil || slices.ContainsFunc(d.Env, func(e string) bool { return strings.HasPrefix(e, "EXTENSION=") }) {
		t.Errorf("env %q, %v", d.Env, err)
	}
}

// What the parser lets through, New refuses, with its position.
func TestBadTemplates(t *testing.T) {
	for name, change := range map[string]func(*config.Action){
		"unknown specifier": func(a *config.Action) { a.Path = "/mail/%{nosuch}" },
		"without }":         func(a *config.Action) { a.Method, a.Command = config.MethodMDA, "x %{dest" },
		"not supported yet": func(a *config.Action) { a.Wrapper = "w" },
		"not in the":        func(a *config.Action) { a.Method, a.Wrapper = config.MethodMDA, "w" },
		`table "nosuch"`:    func(a *config.Action) { a.Virtual = "nosuch" },
	} {
		f := newFixture(t)
		cfg, err := config.Parse("test.conf", []byte("action \"a\" maildir\nmatch from any for any action \"a\"\n"), config.Options{})
		if err != nil {
			t.Fatal(err)
		}
		change(&cfg.Actions[0])
		if _, err := New(t.Context(), Options{Config: cfg, Open: f.open}); err == nil || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "test.conf:1:1: ") {
			t.Errorf("%v, want %q", err, name)
		}
	}
}
