package provision

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"tabard/internal/sealing"
	"tabard/table"
	"tabard/table/tabletest"
)

// TestImportIsOvertaken lets somebody add a row between two steps of an import.
// What the file says of it must not be lost without a word.
func TestImportIsOvertaken(t *testing.T) {
	d, _, _ := openedPostgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, d.AddUser(ctx, "ann", "{SSHA}old", nil, nil, ""))
	conn, err := d.db.Conn(ctx)
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	// Whoever changes a user waits in the middle of it.
	for _, query := range []string{
		`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$`,
		`CREATE TRIGGER hold AFTER UPDATE ON users FOR EACH STATEMENT EXECUTE FUNCTION hold()`,
		`SELECT pg_advisory_lock(42)`,
	} {
		_, err := conn.ExecContext(ctx, query)
		must(t, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := d.Import(ctx, Users(), strings.NewReader("name,hash\nann,{SSHA}new\ndan,{SSHA}file\n"), ImportOptions{Existing: ReplaceExisting})
		ended <- err
	}()
	for waiting := false; !waiting; {
		must(t, conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)`).Scan(&waiting))
	}
	must(t, d.AddUser(ctx, "dan", "{SSHA}other", nil, nil, ""))
	_, err = conn.ExecContext(ctx, `SELECT pg_advisory_unlock(42)`)
	must(t, err)
	is(t, <-ended, ErrExists)
	var ann, dan string
	must(t, d.db.QueryRowContext(ctx, `SELECT (SELECT password FROM users WHERE name = 'ann'), (SELECT password FROM users WHERE name = 'dan')`).Scan(&ann, &dan))
	if ann != "{SSHA}old" || dan != "{SSHA}other" {
		t.Errorf("ann %s, dan %s after an import that failed", ann, dan)
	}
}

// testImportLimits has lines that the checks refuse before the schema would.
func testImportLimits(t *testing.T, opened opener) {
	d, _, _ := opened(t)
	list := strings.TrimSuffix(strings.Repeat("somebody-with-a-name@example.org, ", 100), ", ")
	for name, c := range map[string]struct {
		kind Kind
		text string
		want string
	}{
		"long name":     {Users(), "name\n" + strings.Repeat("a", 400) + "\nok1\n", "longer than 320 characters"},
		"long address":  {Aliases(), "address,target\n" + strings.Repeat("a", 400) + "@example.org,x\nok@example.org,x\n", "longer than 320"},
		"long list":     {Aliases(), "address,target\nlist@example.org,\"" + list + "\"\nok2@example.org,x\n", "target longer than 2000 bytes"},
		"NUL":           {Users(), "name,home\nok3,/home/x\x00y\nok4,/x\n", "field 2: NUL"},
		"Latin-1":       {Users(), "name,home\nok5,/home/j\xf6rg\nok6,/x\n", "field 2: not UTF-8"},
		"Latin-1 name":  {Users(), "name\nj\xf6rg\nok7\n", "field 1: not UTF-8"},
		"Latin-1 login": {RelayLogins(), "label,username,password\na,b,p\xe4ss\nc,b,x\n", "field 3: not UTF-8"},
	} {
		done, bad, err := imports(t, d, c.kind, c.text, ImportOptions{KeepGoing: true})
		if err != nil || done != (counts{Added: 1, Bad: 1}) || !strings.Contains(bad, "2: ") || !strings.Contains(bad, c.want) {
			t.Errorf("%s: %+v, %q, %v; want %q", name, done, bad, err, c.want)
		}
	}
	if done, bad, err := imports(t, d, Users(), "\ufeff\"name\"\nok8\n", ImportOptions{}); err != nil || done.Added != 1 {
		t.Errorf("a quoted heading after a byte order mark: %+v, %q, %v", done, bad, err)
	}
}

// testRemovedUser: who was removed is not let in again by a certificate.
func testRemovedUser(t *testing.T, opened opener) {
	ctx := t.Context()
	d, tab, _ := opened(t)
	must(t, d.AddUser(ctx, "bob", "", nil, nil, ""), d.AddIdentity(ctx, IdentityRow{"dns:bob.example", "bob"}), d.RemoveUser(ctx, "bob"))
	if user, err := tab.CertUser(ctx, "dns:bob.example"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("logs in as %q, %v", user, err)
	}
}

// testOwnCertificate adds an own authority beside others of the name, or changes
// nothing at all.
func testOwnCertificate(t *testing.T, opened opener) {
	ctx := t.Context()
	d, _, _ := opened(t)
	clients, own, again := tabletest.NewPair(t, "Clients", "ecdsa", nil), tabletest.NewPair(t, "Own", "ecdsa", nil), tabletest.NewPair(t, "Own", "ecdsa", nil)
	leaf := tabletest.NewPair(t, "mx.example", "ecdsa", &own)
	must(t, d.SetAuthority(ctx, "mx.example", clients.Chain))
	if err := d.SetOwnCertificate(ctx, "mx.example", Pair{leaf.Chain, clients.Key}, own.Chain); err == nil {
		t.Error("another's key was stored")
	}
	if pem, err := d.Authority(ctx, "mx.example"); err != nil || pem != clients.Chain {
		t.Errorf("what failed changed the authority: %v\n%s", err, pem)
	}
	for _, authority := range []string{own.Chain, again.Chain} {
		must(t, d.SetOwnCertificate(ctx, "mx.example", Pair{leaf.Chain, leaf.Key}, authority))
	}
	if pem, err := d.Authority(ctx, "mx.example"); err != nil || pem != clients.Chain+again.Chain {
		t.Errorf("authority: %v\n%s", err, pem)
	}
}

func TestSealForms(t *testing.T) {
	var ring *sealing.Ring
	ring, err := ring.WithNewKey()
	must(t, err)
	p := tabletest.NewPair(t, "a.example", "ecdsa", nil)
	// Base64 of PEM, as Postfix keeps it, with the key beside it or in it.
	for _, pair := range []Pair{
		{base64.StdEncoding.EncodeToString([]byte(p.Chain)), p.Key},
		{Chain: base64.StdEncoding.EncodeToString([]byte(p.Key + p.Chain))},
		{Chain: p.Key + p.Chain},
	} {
		sealed, err := Sealer{table.Opener{Ring: ring}}.Seal(pair)
		if by := table.SealedBy(sealed.Key); err != nil || sealed.kept() != KeptSealed || len(by) != 1 || sealed.Chain != p.Chain {
			t.Errorf("%+v, %v", sealed, err)
		}
	}
	for range 200 {
		next, err := ring.WithNewKey()
		if err != nil {
			break
		}
		ring = next
	}
	if _, err := sealing.ParseRing(ring.Text()); err != nil {
		t.Errorf("a file that new-key wrote: %v", err)
	}
}
