package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/backends/postgres"
	"tabard/backends/sqlite"
	"tabard/internal/config"
	"tabard/internal/pgtest"
	"tabard/migrations"
	"tabard/table"
	"tabard/table/tabletest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// opener returns a new database, a table that serves it, and its path if it is a
// file.
type opener func(t *testing.T) (*DB, *table.Table, string)

// opened is the opener for SQLite.
func opened(t *testing.T) (*DB, *table.Table, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mail.db")
	d, err := Create(context.Background(), path)
	return served(t, d, err, sqlite.Open, path)
}

// openedPostgres is the opener for PostgreSQL.
func openedPostgres(t *testing.T) (*DB, *table.Table, string) {
	t.Helper()
	s := Source{Conninfo: pgtest.Database(t)}
	if _, err := Open(t.Context(), s); err == nil || !strings.Contains(err.Error(), "run tabard migrate") {
		t.Errorf("a database without the schema: %v", err)
	}
	if from, to, err := s.Migrate(t.Context()); err != nil || from != 0 || to == 0 {
		t.Fatal(from, to, err)
	}
	d, err := Open(t.Context(), s)
	return served(t, d, err, postgres.Open, s.Conninfo)
}

func served(t *testing.T, d *DB, err error, open func(context.Context, config.Table, table.Options) (table.Backend, error), source string) (*DB, *table.Table, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	b, err := open(context.Background(), config.Table{Name: "mail", Source: source}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tab := table.New("mail", b, 0)
	t.Cleanup(func() { tab.Close() })
	return d, tab, source
}

// TestDialects does the same in both databases.
func TestDialects(t *testing.T) {
	for name, open := range map[string]opener{"sqlite": opened, "postgres": openedPostgres} {
		t.Run(name, func(t *testing.T) {
			for name, test := range map[string]func(*testing.T, opener){
				"users": testUsers, "refused users": testUsersRefuse, "domains and aliases": testDomainsAndAliases,
				"relays and senders": testRelaysAndSenders, "certificates": testCertificates,
				"authorities": testAuthorities, "rollback": testRollback,
				"import": testImport, "bad lines": testImportBad, "headings": testImportHeading,
				"import groups": testImportGroups, "import certificates": testImportCertificates, "configs": testConfigs, "identities": testIdentities, "policies": testPolicies, "import limits": testImportLimits,
				"removed users": testRemovedUser, "own certificates": testOwnCertificate,
				"dkim": testDKIM, "refused dkim": testDKIMRefuses, "seal dkim": testDKIMSeal, "import dkim": testImportDKIM,
			} {
				t.Run(name, func(t *testing.T) { test(t, open) })
			}
		})
	}
}

// What is not there is not made by looking at it.
func TestOpenMakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.db")
	if _, err := Open(t.Context(), Source{Path: path}); err == nil || !strings.Contains(err.Error(), "tabard migrate") {
		t.Errorf("a missing database: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}

// must fails the test at the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
	}
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v; want %v", err, want)
	}
}

func TestOpen(t *testing.T) {
	ctx := context.Background()
	d, tab, path := opened(t)
	must(t, tab.Ping(ctx))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600: it holds private keys", info.Mode(), err)
	}
	again, err := Create(ctx, path)
	must(t, err, again.Close())
	if _, err := d.db.Exec(`INSERT INTO tabard_provision_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatal(err)
	}
	_, err = Create(ctx, path)
	is(t, err, migrations.ErrNewer)
	if _, err = Create(ctx, filepath.Join(t.TempDir(), "no", "such", "dir.db")); err == nil {
		t.Error("a directory that is missing was accepted")
	}
}

func testUsers(t *testing.T, opened opener) {
	ctx := context.Background()
	d, tab, _ := opened(t)
	uid, gid := int64(1000), int64(100)
	must(t, d.AddUser(ctx, "Bob@Example.org", "$6$one", nil, nil, ""), d.AddUser(ctx, "alice", "", &uid, &gid, "/home/alice"))
	is(t, d.AddUser(ctx, "bob@example.org", "$6$x", nil, nil, ""), ErrExists)
	is(t, d.SetPassword(ctx, "nobody", "$6$x"), ErrNone)
	must(t, d.SetPassword(ctx, "BOB@example.org", "$6$two"), d.AddSender(ctx, "bob@example.org", "@Example.org"))
	login, err := tab.Credentials(ctx, "bob@example.org")
	if err != nil || login.Password != "$6$two" {
		t.Errorf("login %v, %v", login, err)
	}
	if acc, err := tab.UserInfo(ctx, "alice"); err != nil || acc != (table.Account{UID: 1000, GID: 100, Home: "/home/alice"}) {
		t.Errorf("account %+v, %v", acc, err)
	}
	users, err := d.ListUsers(ctx)
	want := []User{{"alice", &uid, &gid, "/home/alice", true, false}, {"bob@example.org", nil, nil, "", true, true}}
	if diff := cmp.Diff(want, users); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	must(t, d.AddIdentity(ctx, IdentityRow{"DNS:Printer.example", "Bob@example.org"}), d.AddIdentity(ctx, IdentityRow{"email:x@example.org", "nobody"}))
	if user, err := tab.CertUser(ctx, "dns:printer.example"); err != nil || user != "bob@example.org" {
		t.Errorf("user of a certificate: %q, %v", user, err)
	}
	must(t, d.EnableUser(ctx, "bob@example.org", false))
	if user, err := tab.CertUser(ctx, "dns:printer.example"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("certificate of a disabled user: %q, %v", user, err)
	}
	if user, err := tab.CertUser(ctx, "email:x@example.org"); err != nil || user != "nobody" {
		t.Errorf("certificate of a user without a row: %q, %v", user, err)
	}
	_, err = tab.Credentials(ctx, "bob@example.org")
	is(t, err, table.ErrNotFound)
	must(t, d.RemoveUser(ctx, "bob@example.org"))
	is(t, d.RemoveUser(ctx, "bob@example.org"), ErrNone)
	if s, err := d.ListSenders(ctx); err != nil || len(s) != 0 {
		t.Errorf("senders of a removed user: %v, %v", s, err)
	}
}

func testUsersRefuse(t *testing.T, opened opener) {
	ctx := context.Background()
	d, _, _ := opened(t)
	bad := int64(-5)
	for name, err := range map[string]error{
		"clear text":    d.AddUser(ctx, "a", "secret", nil, nil, ""),
		"line end":      d.AddUser(ctx, "a", "$6$\n", nil, nil, ""),
		"no name":       d.AddUser(ctx, " ", "$6$x", nil, nil, ""),
		"blank":         d.AddUser(ctx, "a b", "$6$x", nil, nil, ""),
		"relative home": d.AddUser(ctx, "a", "$6$x", nil, nil, "home"),
		"uid":           d.AddUser(ctx, "a", "$6$x", &bad, nil, ""),
		"password":      d.SetPassword(ctx, "a", "secret"),
	} {
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if users, err := d.ListUsers(ctx); err != nil || len(users) != 0 {
		t.Errorf("users = %v, %v", users, err)
	}
}

func testDomainsAndAliases(t *testing.T, opened opener) {
	ctx := context.Background()
	d, tab, _ := opened(t)
	must(t, d.AddDomain(ctx, "Example.org"), d.AddDomain(ctx, "*.example.net"))
	is(t, d.AddDomain(ctx, "example.ORG"), ErrExists)
	if err := d.AddDomain(ctx, "no domain"); err == nil {
		t.Error("bad domain accepted")
	}
	if ok, err := tab.Check(ctx, table.Domain, "x.example.net"); !ok || err != nil {
		t.Errorf("check = %v, %v", ok, err)
	}
	must(t, d.RemoveDomain(ctx, "*.example.net"))
	is(t, d.RemoveDomain(ctx, "*.example.net"), ErrNone)
	if names, err := d.ListDomains(ctx); err != nil || len(names) != 1 || names[0] != "example.org" {
		t.Errorf("domains = %q, %v", names, err)
	}

	must(t, d.AddAlias(ctx, "Team@example.org", "alice"), d.AddAlias(ctx, "team@example.org", "bob"), d.AddAlias(ctx, "@example.org", "alice"))
	is(t, d.AddAlias(ctx, "team@example.org", "bob"), ErrExists)
	is(t, d.AddAlias(ctx, "x", "not a target"), table.ErrNode)
	if nodes, err := tab.Aliases(ctx, "team@example.org"); err != nil || len(nodes) != 2 {
		t.Errorf("aliases = %v, %v", nodes, err)
	}
	must(t, d.RemoveAlias(ctx, "team@example.org", "alice"))
	rows, err := d.ListAliases(ctx)
	if diff := cmp.Diff([]AliasRow{{"@example.org", "alice"}, {"team@example.org", "bob"}}, rows); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	must(t, d.RemoveAlias(ctx, "team@example.org", ""))
	is(t, d.RemoveAlias(ctx, "team@example.org", ""), ErrNone)
}

func testRelaysAndSenders(t *testing.T, opened opener) {
	ctx := context.Background()
	d, tab, _ := opened(t)
	must(t, d.AddRelay(ctx, RelayRow{"*", "tls://label@b.example", 10, 1}), d.AddRelay(ctx, RelayRow{"*", "tls://a.example", 5, 1}))
	is(t, d.AddRelay(ctx, RelayRow{"*", "tls://a.example", 1, 1}), ErrExists)
	if err := d.AddRelay(ctx, RelayRow{Match: "*", URL: "a b"}); err == nil {
		t.Error("bad URL accepted")
	}
	if urls, err := tab.RelayHosts(ctx, "*"); err != nil || fmt.Sprint(urls) != "[{tls://a.example 5 1} {tls://label@b.example 10 1}]" {
		t.Errorf("relays = %v, %v", urls, err)
	}
	rows, err := d.ListRelays(ctx)
	if diff := cmp.Diff([]RelayRow{{"*", "tls://a.example", 5, 1}, {"*", "tls://label@b.example", 10, 1}}, rows); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	must(t, d.RemoveRelay(ctx, "*", "tls://a.example"), d.RemoveRelay(ctx, "*", ""))
	is(t, d.RemoveRelay(ctx, "*", ""), ErrNone)

	must(t, d.SetRelayCredential(ctx, "Label", "me", "one"), d.SetRelayCredential(ctx, "label", "me", "two"))
	if c, err := tab.Credentials(ctx, "label"); err != nil || c.Password != "two" {
		t.Errorf("credentials = %v, %v", c, err)
	}
	labels, err := d.ListRelayCredentials(ctx)
	if diff := cmp.Diff([]RelayCredential{{"label", "me"}}, labels); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	must(t, d.RemoveRelayCredential(ctx, "label"))
	is(t, d.RemoveRelayCredential(ctx, "label"), ErrNone)

	must(t, d.AddSender(ctx, "alice", "a@x.example"), d.AddSender(ctx, "alice", "@y.example"), d.RemoveSender(ctx, "alice", "A@x.example"))
	is(t, d.RemoveSender(ctx, "alice", "a@x.example"), ErrNone)
	if m, err := tab.MailAddrMap(ctx, "alice"); err != nil || len(m) != 1 {
		t.Errorf("senders = %v, %v", m, err)
	}
}

func testCertificates(t *testing.T, opened opener) {
	ctx := context.Background()
	d, tab, _ := opened(t)
	ca := tabletest.NewPair(t, "CA", "ecdsa", nil)
	one, two, rsa := tabletest.NewPair(t, "mx.example.org", "ecdsa", &ca), tabletest.NewPair(t, "mx.example.org", "ecdsa", &ca), tabletest.NewPair(t, "mx.example.org", "rsa", &ca)
	must(t, d.SetCertificates(ctx, "MX.example.org", Pair{one.Chain, one.Key}))
	if err := d.SetCertificates(ctx, "mx.example.org", Pair{two.Chain, two.Key}, Pair{rsa.Chain, one.Key}); !errors.Is(err, table.ErrCert) {
		t.Errorf("key of another certificate: %v", err)
	}
	if pairs, err := tab.KeyPairs(ctx, "mx.example.org"); err != nil || len(pairs) != 1 || !pairs[0].Leaf.Equal(one.Leaf) {
		t.Errorf("after a refused replacement: %v, %v", pairs, err)
	}
	must(t, d.SetCertificates(ctx, "mx.example.org", Pair{two.Chain, two.Key}, Pair{Chain: rsa.Chain + rsa.Key}))
	if pairs, err := tab.KeyPairs(ctx, "mx.example.org"); err != nil || len(pairs) != 2 || !pairs[0].Leaf.Equal(two.Leaf) || !pairs[1].Leaf.Equal(rsa.Leaf) {
		t.Errorf("after the replacement: %v, %v", pairs, err)
	}
	certs, err := d.ListCertificates(ctx, nil)
	if err != nil || len(certs) != 2 || certs[0].Chain != two.Chain || strings.Contains(certs[1].Chain, "PRIVATE") {
		t.Errorf("list = %+v, %v", certs, err)
	}
	for _, bad := range []string{"", "a b", "**", "mx.*.example"} {
		if err := d.SetCertificates(ctx, bad, Pair{one.Chain, one.Key}); err == nil {
			t.Errorf("name %q accepted", bad)
		}
	}
	must(t, d.SetCertificates(ctx, "*.example.org", Pair{one.Chain, one.Key}), d.RemoveCertificates(ctx, "mx.example.org"))
	is(t, d.RemoveCertificates(ctx, "mx.example.org"), ErrNone)
}

func testAuthorities(t *testing.T, opened opener) {
	ctx := context.Background()
	d, tab, _ := opened(t)
	a, b := tabletest.NewPair(t, "A", "ecdsa", nil), tabletest.NewPair(t, "B", "ecdsa", nil)
	must(t, d.SetAuthority(ctx, "Internal", a.Chain), d.SetAuthority(ctx, "internal", b.Chain))
	if err := d.SetAuthority(ctx, "x", a.Key); err == nil {
		t.Error("a private key was accepted as authority")
	}
	if got, err := tab.Authorities(ctx, "internal"); err != nil || len(got.Anchors) != 1 || !got.Anchors[0].Equal(b.Leaf) {
		t.Errorf("anchors = %v, %v", got, err)
	}
	if pem, err := d.Authority(ctx, "INTERNAL"); err != nil || pem != b.Chain {
		t.Errorf("authority = %q, %v", pem, err)
	}
	if names, err := d.ListAuthorities(ctx); err != nil || len(names) != 1 {
		t.Errorf("names = %q, %v", names, err)
	}
	must(t, d.RemoveAuthority(ctx, "internal"))
	is(t, d.RemoveAuthority(ctx, "internal"), ErrNone)
	_, err := d.Authority(ctx, "internal")
	is(t, err, ErrNone)
}

// A transaction that fails half-way leaves nothing.
func testRollback(t *testing.T, opened opener) {
	ctx := context.Background()
	d, _, _ := opened(t)
	must(t, d.AddDomain(ctx, "example.org"))
	broken := errors.New("broken")
	err := d.inTx(ctx, func(tx tx) error {
		if _, err := tx.Exec(`DELETE FROM domains`); err != nil {
			return err
		}
		return broken
	})
	is(t, err, broken)
	if names, err := d.ListDomains(ctx); err != nil || len(names) != 1 {
		t.Errorf("domains = %q, %v", names, err)
	}
}

func testIdentities(t *testing.T, opened opener) {
	ctx := t.Context()
	d, _, _ := opened(t)
	colons := strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	must(t, d.AddIdentity(ctx, IdentityRow{"sha256:" + colons, "ann"}), d.AddIdentity(ctx, IdentityRow{"dn:CN=Printer 7,O=Example", "ann"}))
	is(t, d.AddIdentity(ctx, IdentityRow{"sha256:" + strings.Repeat("ab", 32), "bob"}), ErrExists)
	for _, bad := range []string{"", "printer", "cn:x", "dns:", "sha256:abc", "sha256:" + strings.Repeat("xy", 32), "dns:a\nb", "dn:" + strings.Repeat("x", 2000)} {
		if err := d.AddIdentity(ctx, IdentityRow{bad, "ann"}); err == nil {
			t.Errorf("identity %q accepted", bad)
		}
	}
	if _, bad, err := imports(t, d, Identities(), "identity,user\ndns:a.example,ann\nx,ann\n", ImportOptions{KeepGoing: true}); err != nil || !strings.HasPrefix(bad, `3: identity "x": want`) {
		t.Errorf("import: %q, %v", bad, err)
	}
	want := []IdentityRow{{"dn:cn=printer 7,o=example", "ann"}, {"dns:a.example", "ann"}, {"sha256:" + strings.Repeat("ab", 32), "ann"}}
	if all, err := d.ListIdentities(ctx); err != nil || !cmp.Equal(all, want) {
		t.Errorf("list %v, %v", all, err)
	}
	must(t, d.RemoveIdentity(ctx, "SHA256:"+colons))
	is(t, d.RemoveIdentity(ctx, "dns:b.example"), ErrNone)
}

func testPolicies(t *testing.T, opened opener) {
	ctx := t.Context()
	d, _, _ := opened(t)
	must(t, d.SetPolicy(ctx, PolicyRow{"Dest.example", "encrypt"}), d.SetPolicy(ctx, PolicyRow{"dest.example", "secure  match=.dest.example"}))
	must(t, d.SetPolicy(ctx, PolicyRow{"*.wild.example", "may"}), d.SetPolicy(ctx, PolicyRow{".dot.example", "none"}),
		d.SetPolicy(ctx, PolicyRow{"*", "may"}), d.SetPolicy(ctx, PolicyRow{"192.0.2.1", "verify"}))
	for _, bad := range []PolicyRow{{"", "may"}, {"a.example", ""}, {"a.example", "sometimes"}, {"a b", "may"}, {"a.example", "encrypt protocols=SSLv3"}} {
		if err := d.SetPolicy(ctx, bad); err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
	if _, bad, err := imports(t, d, Policies(), "domain,policy\na.example,may\nb.example,perhaps\n", ImportOptions{KeepGoing: true}); err != nil || !strings.Contains(bad, `unknown level "perhaps"`) {
		t.Errorf("import: %q, %v", bad, err)
	}
	all, err := d.ListPolicies(ctx)
	if err != nil || len(all) != 6 || !slices.Contains(all, PolicyRow{"dest.example", "secure match=.dest.example"}) {
		t.Errorf("list %v, %v", all, err)
	}
	must(t, d.RemovePolicy(ctx, "DEST.example"))
	is(t, d.RemovePolicy(ctx, "dest.example"), ErrNone)
}
