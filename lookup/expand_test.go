package lookup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/table"
)

const expandConf = `
table aliases sqlite:/mem/aliases
table virtuals sqlite:/mem/virtuals
table users sqlite:/mem/users
table mail sqlite:/mem/mail
listen on 127.0.0.1
action "alias" maildir alias <aliases> userbase <users>
action "virtual" maildir virtual <virtuals> userbase <users>
action "mail" maildir virtual <mail> userbase <mail>
action "mailonly" maildir userbase <mail>
action "only" expand-only virtual <virtuals>
action "fwd" forward-only virtual <virtuals>
action "as" maildir virtual <virtuals> userbase <users> user "vmail"
action "out" relay
match from any for domain "a.example" action "alias"
match from any for domain "v.example" action "virtual"
match from any for domain "m.example" action "mail"
match from any for domain "mo.example" action "mailonly"
match from any for domain "o.example" action "only"
match from any for domain "f.example" action "fwd"
match from any for domain "as.example" action "as"
match from any for domain "refused.example" reject
match from any for domain "relayed.example" action "out"
match from local for domain "internal.example" action "out"
match from src 198.51.100.0/24 for domain "bysrc.example" action "out"
match from socket for domain "sock.example" action "out"
`

func expandFixture(t testing.TB) (*fixture, *Service) {
	f := newFixture(t)
	for _, u := range []string{"u1", "u2", "postmaster", "bob"} {
		f.table("users").set(table.UserInfo, u, "1000:1000:/home/"+u)
	}
	return f, f.service(expandConf)
}

func (f *fixture) aliases(name string, pairs map[string]string) {
	for k, v := range pairs {
		f.table(name).set(table.Alias, k, v)
	}
}

func (f *fixture) expect(s *Service, tests map[string]string) {
	f.t.Helper()
	for rcpt, want := range tests {
		got := reply(s.Recipient(f.t.Context(), RecipientRequest{Session: session(), Sender: "s@x.example", Recipient: rcpt}))
		if wantErr, ok := strings.CutPrefix(want, "error: "); ok {
			if !strings.HasPrefix(got, "error: ") || !strings.Contains(got, wantErr) {
				f.t.Errorf("%s: %.500s\nwant %s", rcpt, got, want)
			}
			continue
		}
		if got != want {
			f.t.Errorf("%s: %.500s\nwant %s", rcpt, got, want)
		}
	}
}

func TestAlias(t *testing.T) {
	f, s := expandFixture(t)
	f.aliases("aliases", map[string]string{
		"root": "u1", "all": "u1, u2, u1", "tagged": "u1+news", "self": "self", "bob": "bob, u1", "u1+special": "u2",
		"remote": "ext@relayed.example", "nested": "all, remote", "twice": "u1, u1+news", "ghost": "u1, nobody", "ring1": "ring2", "ring2": "ring1",
		"selfaddr": "selfaddr@a.example, u1", "postmaster": "postmaster@a.example",
	})
	f.expect(s, map[string]string{
		"u1@a.example":         "local alias u1@a.example u1",
		"u1+tag@a.example":     "local alias u1+tag@a.example u1",
		"u1+special@a.example": "local alias u1+special@a.example u2",
		"twice@a.example":      "local alias twice@a.example u1",
		"root@a.example":       "local alias root@a.example u1",
		"ROOT@a.example":       "local alias ROOT@a.example u1",
		"all@a.example":        "local alias all@a.example u1; local alias all@a.example u2",
		"tagged@a.example":     "local alias tagged@a.example u1",
		"bob@a.example":        "local alias bob@a.example bob; local alias bob@a.example u1",
		"bob+x@a.example":      "local alias bob+x@a.example u1; local alias bob+x@a.example bob",
		"postmaster@a.example": "local alias postmaster@a.example postmaster",
		"remote@a.example":     "relay out ext@relayed.example",
		"nested@a.example":     "local alias nested@a.example u1; local alias nested@a.example u2; relay out ext@relayed.example",
		"nobody@a.example":     "550 5.1.1 Invalid recipient: <nobody@a.example>",
		"ghost@a.example":      "550 5.1.1 Invalid recipient: <ghost@a.example>",
		"self@a.example":       "550 5.1.1 Invalid recipient: <self@a.example>",
		"ring1@a.example":      "550 5.4.6 Invalid recipient: <ring1@a.example>: alias loop",
	})
}

// Keys of a virtual table, in order; the first that has a row counts.
func TestVirtualKeys(t *testing.T) {
	order := []string{"w+t@v.example", "w@v.example", "w+t", "w", "@v.example", "@"}
	for i := range order {
		f, s := expandFixture(t)
		for j, k := range order[i:] {
			target := "u2"
			if j == 0 {
				target = "u1"
			}
			f.table("virtuals").set(table.Alias, k, target)
		}
		f.expect(s, map[string]string{"w+t@v.example": "local virtual w+t@v.example u1"})
	}
}

// A bare user that an expansion made is asked as "user@" and "user", and the
// catch-alls do not apply to it.
func TestVirtualUser(t *testing.T) {
	f, s := expandFixture(t)
	f.aliases("virtuals", map[string]string{
		"a@v.example": "u1", "u1@": "u2", "b@v.example": "bob", "@": "postmaster", "@v.example": "postmaster",
		"c@v.example": "c", "c": "c", "d@v.example": "u2", "u2": "u2",
	})
	f.expect(s, map[string]string{
		"a@v.example":    "local virtual a@v.example u2",
		"b@v.example":    "local virtual b@v.example bob",
		"c@v.example":    "550 5.1.1 Invalid recipient: <c@v.example>",
		"d@v.example":    "local virtual d@v.example u2",
		"else@v.example": "local virtual else@v.example postmaster",
	})
}

func TestMailboxes(t *testing.T) {
	f, s := expandFixture(t)
	mail := f.table("mail")
	for _, u := range []string{"alice@m.example", "carol+x@m.example", "self@m.example", "alice@mo.example", "vip@m.example"} {
		mail.set(table.UserInfo, u, "", "", "")
	}
	f.aliases("mail", map[string]string{
		"@m.example": "caught@relayed.example", "alice": "wrong@relayed.example", "self@m.example": "self@m.example, ext@relayed.example",
		"sales@m.example": "alice@m.example, vip@m.example", "vip@m.example": "alice@m.example", "info+x@m.example": "vip@m.example",
	})
	f.expect(s, map[string]string{
		"alice@m.example":       "local mail alice@m.example alice@m.example",
		"Alice+tag@M.example":   "local mail Alice+tag@m.example alice@m.example",
		"carol+x@m.example":     "local mail carol+x@m.example carol+x@m.example",
		"carol@m.example":       "relay out caught@relayed.example",
		"nobody@m.example":      "relay out caught@relayed.example",
		"self@m.example":        "local mail self@m.example self@m.example; relay out ext@relayed.example",
		"vip@m.example":         "local mail alice@m.example alice@m.example",
		"sales@m.example":       "local mail alice@m.example alice@m.example",
		"info+x@m.example":      "local mail alice@m.example alice@m.example",
		"alice@mo.example":      "local mailonly alice@mo.example alice@mo.example",
		"alice+tag@mo.example":  "local mailonly alice+tag@mo.example alice@mo.example",
		"bob@mo.example":        "550 5.1.1 Invalid recipient: <bob@mo.example>",
		`"alice"@mo.example`:    "local mailonly alice@mo.example alice@mo.example",
		`"al ice"@mo.example`:   "550 5.1.1 Invalid recipient: <\"al ice\"@mo.example>",
		`"../alice"@mo.example`: "550 5.1.1 Invalid recipient: <\"../alice\"@mo.example>",
	})
}

func TestExpandedThroughRules(t *testing.T) {
	f, s := expandFixture(t)
	f.aliases("virtuals", map[string]string{
		"int@v.example": "x@internal.example", "no@v.example": "x@refused.example", "none@v.example": "x@nowhere.example",
		"src@v.example": "x@bysrc.example", "sock@v.example": "x@sock.example", "other@v.example": "u1@a.example",
		"list@o.example": "u1@a.example, x@relayed.example", "user@o.example": "u1", "f@f.example": "u1", "as@as.example": "u1",
		"bad@v.example": "not an address at all", "empty@v.example": " , ", "pipe@v.example": "|/bin/cat", "file@v.example": "/var/mail/x",
		"no5@v.example": "error:550 User moved", "no4@v.example": "error:450 4.2.1 Mailbox locked", "no57@v.example": "error:554 5.7.1 Go away",
		"no54@v.example": "error:554 4.7.1 Go away",
	})
	f.expect(s, map[string]string{
		"x@internal.example": "550 5.7.1 Invalid recipient: <x@internal.example>: relaying denied",
		"int@v.example":      "relay out x@internal.example",
		"no@v.example":       "550 5.7.1 Invalid recipient: <no@v.example>",
		"none@v.example":     "550 5.7.1 Invalid recipient: <none@v.example>",
		"x@bysrc.example":    "relay out x@bysrc.example",
		"src@v.example":      "550 5.7.1 Invalid recipient: <src@v.example>",
		"sock@v.example":     "550 5.7.1 Invalid recipient: <sock@v.example>",
		"other@v.example":    "local alias u1@a.example u1",
		"list@o.example":     "local alias u1@a.example u1; relay out x@relayed.example",
		"user@o.example":     "550 5.1.1 Invalid recipient: <user@o.example>",
		"f@f.example":        "error: not supported yet: forward-only",
		"as@as.example":      "local as as@as.example u1",
		"bad@v.example":      "error: not an address",
		"empty@v.example":    "error: empty",
		"pipe@v.example":     "error: not supported yet: delivery to a pipe",
		"file@v.example":     "error: not supported yet: delivery to a file",
		"no5@v.example":      "550 5.0.0 User moved",
		"no4@v.example":      "450 4.2.1 Mailbox locked",
		"no57@v.example":     "554 5.7.1 Go away",
		"no54@v.example":     "554 5.0.0 4.7.1 Go away",
	})
	for _, cause := range []string{"x@refused.example: rejected by the rule at test.conf", "x@nowhere.example: no rule matches", "not supported yet: delivery to a pipe"} {
		if !strings.Contains(f.log.String(), cause) {
			t.Errorf("the log does not tell %q", cause)
		}
	}
}

func TestExpansionBounds(t *testing.T) {
	f, s := expandFixture(t)
	for i := range 30 {
		f.table("virtuals").set(table.Alias, fmt.Sprintf("chain%d@v.example", i), fmt.Sprintf("chain%d@v.example", i+1))
	}
	f.table("virtuals").set(table.Alias, "chain30@v.example", "u1")
	f.aliases("virtuals", map[string]string{
		"x@v.example": "y@v.example", "y@v.example": "z@v.example", "z@v.example": "x@v.example",
		"loopy@v.example": "x@v.example, u1", "double@v.example": "u1, u1@v.example", "u1@v.example": "u1",
	})
	var many []string
	for i := range 7000 {
		many = append(many, fmt.Sprintf("m%d@relayed.example", i))
	}
	f.table("virtuals").set(table.Alias, "many@v.example", many...)
	more := []string{"many@v.example"}
	for i := range many {
		more = append(more, "n"+many[i])
	}
	f.table("virtuals").set(table.Alias, "more@v.example", more...)
	f.expect(s, map[string]string{
		"chain21@v.example": "local virtual chain30@v.example u1",
		"chain20@v.example": "550 5.4.6 Invalid recipient: <chain20@v.example>: more than 10 levels of aliases",
		"chain0@v.example":  "550 5.4.6 Invalid recipient: <chain0@v.example>: more than 10 levels of aliases",
		"x@v.example":       "550 5.4.6 Invalid recipient: <x@v.example>: alias loop",
		"loopy@v.example":   "local virtual loopy@v.example u1",
		"double@v.example":  "local virtual double@v.example u1; local virtual u1@v.example u1",
		"more@v.example":    "error: alias expansion is too large",
	})
	r, err := s.Recipient(t.Context(), RecipientRequest{Session: session(), Recipient: "many@v.example"})
	if err != nil || len(r.Targets) != 7000 {
		t.Errorf("many: %d targets, %v", len(r.Targets), err)
	}
}

func TestInclude(t *testing.T) {
	f, s := expandFixture(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	list := write("list", "# members\nu1\n\nu2, ext@relayed.example\n")
	loop := write("loop", "u1, include:"+filepath.Join(dir, "loop")+"\n")
	f.aliases("virtuals", map[string]string{
		"list@v.example": "include:" + list, "loop@v.example": "include:" + loop,
		"none@v.example": "include:" + filepath.Join(dir, "none"), "dir@v.example": "include:" + dir,
	})
	f.expect(s, map[string]string{
		"list@v.example": "local virtual list@v.example u1; local virtual list@v.example u2; relay out ext@relayed.example",
		"loop@v.example": "local virtual loop@v.example u1",
		"none@v.example": "error: no such file",
		"dir@v.example":  "error: not a regular file",
	})
}

// An error of any table at any step is an error of the recipient.
func TestExpansionErrors(t *testing.T) {
	for _, down := range []string{"aliases", "virtuals", "users", "mail"} {
		f, s := expandFixture(t)
		f.aliases("aliases", map[string]string{"x": "u1"})
		f.aliases("virtuals", map[string]string{"x@v.example": "u1"})
		f.table("mail").set(table.UserInfo, "x@m.example", "", "", "")
		f.table(down).fail(errDown)
		asks := map[string][]string{"aliases": {"x@a.example"}, "virtuals": {"x@v.example"}, "users": {"x@a.example", "x@v.example"}, "mail": {"x@m.example"}}
		for _, rcpt := range asks[down] {
			f.expect(s, map[string]string{rcpt: "error: connection refused"})
		}
	}
	f, s := expandFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Recipient(ctx, RecipientRequest{Session: session(), Recipient: "u1@a.example"}); err == nil {
		t.Error("no error although the caller went away")
	}
	_ = f
}

func TestBounce(t *testing.T) {
	f, s := expandFixture(t)
	f.aliases("virtuals", map[string]string{"x@v.example": "u1, y@elsewhere.example"})
	for rcpt, want := range map[string]string{
		"u1@a.example":        "local alias u1@a.example u1",
		"gone@a.example":      "550 5.1.1 Invalid recipient: <gone@a.example>",
		"who@unruled.example": "relay  who@unruled.example",
		"x@internal.example":  "relay out x@internal.example",
		"x@refused.example":   "550 5.7.1 Invalid recipient: <x@refused.example>",
		"x@v.example":         "550 5.7.1 Invalid recipient: <x@v.example>",
		"not an address":      "553 5.1.3 Invalid recipient: <not an address>",
		"":                    "553 5.1.3 Invalid recipient: <>",
	} {
		if got := reply(s.Bounce(t.Context(), rcpt)); got != want {
			t.Errorf("%s: %s\nwant %s", rcpt, got, want)
		}
	}
	infos, err := s.Actions(t.Context())
	if err != nil || len(infos) != 8 || infos[0].Name != "alias" || infos[0].Relay || !infos[7].Relay {
		t.Errorf("Actions = %+v, %v", infos, err)
	}
}
