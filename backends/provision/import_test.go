package provision

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/internal/password"
	"tabard/table"
	"tabard/table/tabletest"
)

// counts is what can be compared of Imported.
type counts struct{ Added, Replaced, Skipped, Bad int64 }

// imports imports a text and tells what came of it, the bad lines too.
func imports(t *testing.T, d *DB, k Kind, text string, o ImportOptions) (counts, string, error) {
	t.Helper()
	done, err := d.Import(t.Context(), k, strings.NewReader(text), o)
	var bad strings.Builder
	for _, b := range done.BadLines {
		fmt.Fprintf(&bad, "%d: %v\n", b.Line, b.Err)
	}
	return counts{done.Added, done.Replaced, done.Skipped, done.Bad}, bad.String(), err
}

func testImport(t *testing.T, opened opener) {
	d, tab, _ := opened(t)
	must(t, d.AddUser(t.Context(), "ann@example.org", "", nil, nil, ""))
	const file = "\ufeffName,hash,uid,gid,enabled\n" +
		"Ann@Example.org,{SSHA}new,5,6,no\n" +
		"bob,{SSHA}b,,,\n" +
		"\"carol\",{SSHA}c,7,8,yes\n"
	done, bad, err := imports(t, d, Users(), file, ImportOptions{})
	if !errors.Is(err, ErrBadLines) || bad != "2: exists already\n" || done != (counts{Bad: 1}) {
		t.Errorf("an existing user: %+v, %q, %v", done, bad, err)
	}
	if users, err := d.ListUsers(t.Context()); err != nil || len(users) != 1 {
		t.Errorf("all or nothing left %+v, %v", users, err)
	}
	done, bad, err = imports(t, d, Users(), file, ImportOptions{Existing: SkipExisting})
	if err != nil || bad != "" || done != (counts{Added: 2, Skipped: 1}) {
		t.Errorf("skip: %+v, %q, %v", done, bad, err)
	}
	done, bad, err = imports(t, d, Users(), file, ImportOptions{Existing: ReplaceExisting})
	if err != nil || bad != "" || done != (counts{Replaced: 3}) {
		t.Errorf("replace: %+v, %q, %v", done, bad, err)
	}
	if _, err := tab.UserInfo(t.Context(), "ann@example.org"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("a user who was disabled: %v", err)
	}
	if c, err := tab.Credentials(t.Context(), "carol"); err != nil || c.Password != "{SSHA}c" {
		t.Errorf("carol: %v, %v", c, err)
	}
	// What the file has no column for stays.
	done, _, err = imports(t, d, Users(), "name,home\ncarol,/home/carol\ndan@example.org,\n", ImportOptions{Existing: ReplaceExisting})
	if err != nil || done != (counts{Added: 1, Replaced: 1}) {
		t.Errorf("replace homes: %+v, %v", done, err)
	}
	if c, err := tab.Credentials(t.Context(), "carol"); err != nil || c.Password != "{SSHA}c" {
		t.Errorf("carol lost her hash: %v, %v", c, err)
	}
	if senders, err := d.ListSenders(t.Context()); err != nil || !cmp.Equal(senders, []SenderRow{{"dan@example.org", "dan@example.org"}}) {
		t.Errorf("senders %v, %v", senders, err)
	}
}

func testImportBad(t *testing.T, opened opener) {
	d, _, _ := opened(t)
	const file = `name,password,hash,uid,gid,home,enabled
ok,secret,,,,,
"a b",,,,,,
both,x,{SSHA}x,,,,
nohash,,clear,,,,
"multi
line",,,,,,
half,,,5,,,
far,,,4294967295,1,,
where,,,,,home,
maybe,,,,,,maybe
ok,,,,,,
few,x
"open"x,,,,,,
last,,,,,,
`
	const want = `3: user "a b": blanks in it
4: user both: both a password and a hash
5: user nohash: password hash: neither $id$hash nor {SCHEME}hash
6: user "multi\nline": bad key: NUL, CR or LF in it
8: user half: uid without gid
9: user far: uid "4294967295": not a number from 0 to 4294967294
10: user where: home "home" is not an absolute path
11: user maybe: enabled "maybe": neither yes nor no
12: the same name as in line 2
13: wrong number of fields
14: extraneous or missing " in quoted-field
`
	done, bad, err := imports(t, d, Users(), file, ImportOptions{})
	if diff := cmp.Diff(want, bad); diff != "" || !errors.Is(err, ErrBadLines) || done != (counts{Bad: 11}) {
		t.Errorf("%+v, %v; bad lines (-want +got):\n%s", done, err, diff)
	}
	if users, err := d.ListUsers(t.Context()); err != nil || len(users) != 0 {
		t.Errorf("all or nothing left %+v, %v", users, err)
	}
	done, bad, err = imports(t, d, Users(), file, ImportOptions{KeepGoing: true})
	if diff := cmp.Diff(want, bad); diff != "" || err != nil || done != (counts{Added: 2, Bad: 11}) {
		t.Errorf("keep going: %+v, %v; bad lines (-want +got):\n%s", done, err, diff)
	}
	var hash string
	must(t, d.db.QueryRow(`SELECT password FROM users WHERE name = 'ok'`).Scan(&hash))
	if ok, err := password.Verify(hash, "secret"); !ok || err != nil {
		t.Errorf("the password was stored as %q: %v, %v", hash, ok, err)
	}
	many := "name\n" + strings.Repeat("a b\n", 5*maxBadLines) + "good\n"
	done, _, err = imports(t, d, Domains(), many, ImportOptions{})
	if !errors.Is(err, ErrBadLines) || done.Bad < maxBadLines || done.Bad > 3*maxBadLines {
		t.Errorf("many bad lines: %+v, %v", done, err)
	}
	done, _, err = imports(t, d, Domains(), many, ImportOptions{KeepGoing: true})
	if err != nil || done != (counts{Added: 1, Bad: 5 * maxBadLines}) {
		t.Errorf("many bad lines, keep going: %+v, %v", done, err)
	}
}

func testImportHeading(t *testing.T, opened opener) {
	d, _, _ := opened(t)
	for text, want := range map[string]string{
		"":                     "line 1: empty",
		"hash\n":               "no column name",
		"name,mail\n":          `unknown column "mail"`,
		"name,name\n":          "column name twice",
		"name,uid\n":           "uid and gid must be given together",
		"\"name\n":             "line 1",
		"ann@example.org,x\nb": `unknown column "ann@example.org"`,
	} {
		if _, _, err := imports(t, d, Users(), text, ImportOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	if done, _, err := imports(t, d, Users(), "name\n", ImportOptions{}); err != nil || done != (counts{}) {
		t.Errorf("no lines: %+v, %v", done, err)
	}
}

// testImportGroups replaces what belongs together.
func testImportGroups(t *testing.T, opened opener) {
	ctx := t.Context()
	d, tab, _ := opened(t)
	must(t, d.AddAlias(ctx, "a@example.org", "old1"), d.AddAlias(ctx, "a@example.org", "old2"), d.AddAlias(ctx, "b@example.org", "stays"))
	// A row that SQL put there may have capitals.
	if _, err := d.db.Exec(`UPDATE aliases SET address = 'A@Example.org' WHERE target = 'old1'`); err != nil {
		t.Fatal(err)
	}
	const file = "target,address\nold1,A@example.org\n\"x, y@example.net\",a@example.org\n"
	if _, bad, err := imports(t, d, Aliases(), file, ImportOptions{}); !errors.Is(err, ErrBadLines) || bad != "2: exists already\n" {
		t.Errorf("refuse: %q, %v", bad, err)
	}
	if done, _, err := imports(t, d, Aliases(), file, ImportOptions{Existing: ReplaceExisting}); err != nil || done != (counts{Added: 2, Replaced: 2}) {
		t.Errorf("replace: %+v, %v", done, err)
	}
	if row, err := tab.Lookup(ctx, table.Alias, "a@example.org"); err != nil || !cmp.Equal(row, table.Row{"old1", "x, y@example.net"}) {
		t.Errorf("a: %v, %v", row, err)
	}
	if row, err := tab.Lookup(ctx, table.Alias, "b@example.org"); err != nil || !cmp.Equal(row, table.Row{"stays"}) {
		t.Errorf("b: %v, %v", row, err)
	}
	for _, c := range []struct {
		kind Kind
		text string
		bad  string
	}{
		{Relays(), "match,url,priority,weight\nexample.net,tls://l@mx.example.net,2,\n*,smtp://out.example.net,,3\n", ""},
		{Relays(), "match,url,weight\na.example,http://x,1\nb.example,tls://x,-1\n", "2: relay a.example: bad relay URL"},
		{Senders(), "user,address\nann,ann@example.org\nann,@example.net\n", ""},
		{Senders(), "user,address\nann,\n", "2: sender: empty"},
		{RelayLogins(), "label,username,password\nl,me,\" secret, word \"\n", ""},
		{RelayLogins(), "label,username,password\nm,me,\n", "2: label m: user name and password must be given"},
		{Domains(), "name\nexample.org\n*.example.net\n", ""},
		{Domains(), "name\nexa_mple..org\n", `2: domain "exa_mple..org"`},
	} {
		_, bad, err := imports(t, d, c.kind, c.text, ImportOptions{})
		if c.bad == "" && err != nil || !strings.HasPrefix(bad, c.bad) || c.bad != "" && !errors.Is(err, ErrBadLines) {
			t.Errorf("%s %q: %q, %v; want %q", c.kind.Name, c.text, bad, err, c.bad)
		}
	}
	if row, err := tab.Lookup(ctx, table.RelayHost, "example.net"); err != nil || !cmp.Equal(row, table.Row{"tls://l@mx.example.net", "2", "1"}) {
		t.Errorf("relay: %v, %v", row, err)
	}
	if c, err := tab.Credentials(ctx, "l"); err != nil || c.Password != " secret, word " {
		t.Errorf("login: %v, %v", c, err)
	}
	if done, _, err := imports(t, d, RelayLogins(), "label,username,password\nl,you,other\n", ImportOptions{Existing: ReplaceExisting}); err != nil || done != (counts{Replaced: 1}) {
		t.Errorf("replace a login: %+v, %v", done, err)
	}
	if done, _, err := imports(t, d, Domains(), "name\nexample.org\nexample.com\n", ImportOptions{Existing: ReplaceExisting}); err != nil || done != (counts{Added: 1, Skipped: 1}) {
		t.Errorf("replace a domain: %+v, %v", done, err)
	}
}

func testImportCertificates(t *testing.T, opened opener) {
	d, tab, _ := opened(t)
	dir := t.TempDir()
	a, b := tabletest.NewPair(t, "a.example", "ecdsa", nil), tabletest.NewPair(t, "b.example", "ecdsa", nil)
	rsa := tabletest.NewPair(t, "a.example", "rsa", nil)
	for name, text := range map[string]string{"a.pem": a.Chain, "a.key": a.Key, "b.pem": b.Chain, "rsa.pem": rsa.Chain + rsa.Key} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	o := ImportOptions{Dir: dir}
	const file = "name,chain_file,key_file\nA.example,a.pem,a.key\na.example,rsa.pem,\n"
	if done, bad, err := imports(t, d, Certs(), file, o); err != nil || done != (counts{Added: 2}) {
		t.Fatalf("files: %+v, %q, %v", done, bad, err)
	}
	if pairs, err := tab.KeyPairs(t.Context(), "a.example"); err != nil || len(pairs) != 2 || !pairs[0].Leaf.Equal(a.Leaf) || !pairs[1].Leaf.Equal(rsa.Leaf) {
		t.Errorf("pairs %v, %v", pairs, err)
	}
	inline := "name,chain,key\n" + fmt.Sprintf("b.example,\"%s\",\"%s\"\n", b.Chain, b.Key)
	if done, bad, err := imports(t, d, Certs(), inline, o); err != nil || done != (counts{Added: 1}) {
		t.Errorf("inline: %+v, %q, %v", done, bad, err)
	}
	if done, _, err := imports(t, d, Certs(), "name,chain_file,key_file\na.example,a.pem,a.key\n", ImportOptions{Dir: dir, Existing: ReplaceExisting}); err != nil || done != (counts{Added: 1, Replaced: 2}) {
		t.Errorf("replace: %+v, %v", done, err)
	}
	const bad = "name,chain_file,key_file,chain\nc.example,b.pem,a.key,\nd.example,none.pem,,\ne.example,b.pem,,x\nf.example,.,,\na.example,a.pem,a.key,\n"
	_, told, err := imports(t, d, Certs(), bad, o)
	lines := strings.Split(told, "\n")
	for i, want := range []string{"2: certificate c.example: bad certificate: private key 1", "3: certificate d.example: open", "4: certificate e.example: both", "5: certificate f.example: " + dir + ": not a regular file", "6: exists already"} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %q; want %q", lines[i], want)
		}
	}
	if !errors.Is(err, ErrBadLines) || strings.Contains(told, "PRIVATE KEY-") {
		t.Errorf("%v:\n%s", err, told)
	}
	if _, _, err := imports(t, d, Certs(), "name\n", o); err == nil || !strings.Contains(err.Error(), "chain or chain_file") {
		t.Errorf("no chain: %v", err)
	}
}

func testConfigs(t *testing.T, opened opener) {
	ctx := t.Context()
	d, tab, _ := opened(t)
	_, _, err := d.Config(ctx, "default", 0)
	is(t, err, ErrNone)
	for i, c := range []struct {
		name, text string
		base, want int64
		err        error
	}{
		{"Default", "one", 0, 1, nil},
		{"default", "one", -1, 1, nil}, // the same
		{"default", "two", -1, 2, nil},
		{"default", "three", 1, 2, ErrChanged},
		{"default", "three", 2, 3, nil},
		{"other", "four", 1, 0, ErrChanged},
		{"other", "four", 0, 1, nil},
	} {
		if v, err := d.SetConfig(ctx, c.name, c.text, "ann", c.base); v != c.want || !errors.Is(err, c.err) {
			t.Errorf("step %d: version %d, %v; want %d, %v", i, v, err, c.want, c.err)
		}
	}
	if text, v, err := d.Config(ctx, "DEFAULT", 0); text != "three" || v != 3 || err != nil {
		t.Errorf("newest: %q, %d, %v", text, v, err)
	}
	if text, v, err := d.Config(ctx, "default", 2); text != "two" || v != 2 || err != nil {
		t.Errorf("second: %q, %d, %v", text, v, err)
	}
	_, _, err = d.Config(ctx, "default", 9)
	is(t, err, ErrNone)
	if text, err := tab.ConfigText(ctx, "default"); text != "three" || err != nil {
		t.Errorf("served: %q, %v", text, err)
	}
	all, err := d.ConfigHistory(ctx, "")
	if err != nil || len(all) != 4 || all[0].Version != 3 || all[0].Author != "ann" || all[0].Bytes != 5 || all[0].Created.IsZero() || all[3].Name != "other" {
		t.Errorf("history %+v, %v", all, err)
	}
	if all, err := d.ConfigHistory(ctx, "other"); err != nil || len(all) != 1 {
		t.Errorf("history of one %+v, %v", all, err)
	}
}
