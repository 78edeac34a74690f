package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"

	"tabard/internal/config"
	"tabard/internal/pgtest"
	"tabard/table"
	"tabard/table/tabletest"
)

// wanted is what a table of an existing schema says. "yes" and "no" are of
// checks; an empty text is not found.
type wanted map[table.Service]map[string]string

// existing are the schemas of testdata, asked by the tables of docs/examples.
var existing = map[string]wanted{
	"postfixadmin": {
		table.Domain: {"example.org": "yes", "example.net": "yes", "backup.example": "no", "off.example": "no", "x.example": "no"},
		table.Alias: {
			"team@example.org": "alice@example.org bob@example.com", "alice@example.org": "alice@example.org", "@example.org": "postmaster@example.com",
			"team@example.net": "alice@example.org bob@example.com", "@example.net": "postmaster@example.com",
			"old@example.org": "", "nobody@example.org": "", "alice": "", "@": "",
		},
		table.Credentials: {"alice@example.org": "alice@example.org $6$xyz$A6xWUttqNGmYWq2sz8IJ5iJW91/6DIdzRd7lVW1ko/D3CwGgrvne4sRa5gLszUqTGzFThn.OThfhxwLUrb0dl/", "gone@example.org": ""},
		table.UserInfo:    {"alice@example.org": `-1 -1 "/var/vmail/example.org/alice"`, "gone@example.org": "", "alice": ""},
		table.MailAddrMap: {"alice@example.org": "alice@example.org sales@example.org", "gone@example.org": ""},
		table.RelayHost:   {"backup.example": "smtp+tls://mx.backup.example:2525", "example.org": "", "*.example": ""},
		table.DKIM:        {"example.org": "s1:ed25519.PrivateKey", "example.net": ""},
	},
	"iredmail": {
		table.Domain: {"example.org": "yes", "example.net": "yes", "backup.example": "no", "off.example": "no"},
		table.Alias: {
			"team@example.org": "alice@example.org bob@example.com", "@example.org": "postmaster@example.com", "alice@example.net": "alice@example.org",
			"old@example.org": "", "nobody@example.org": "", "@example.net": "",
		},
		table.Credentials: {"alice@example.org": "alice@example.org {SSHA512}k8G/JHpStMMV4C65/rUseBLZfScFAJyrFa/TgBrvr5meqXBDwy/vq4MC+A2d6yKZV/ylOSSuwjt2ToPA5yDQiJGZI8U=", "nosmtp@example.org": ""},
		table.UserInfo:    {"alice@example.org": `-1 -1 "/var/vmail/vmail1/example.org/a/l/i/alice"`, "nobody@example.org": ""},
		table.MailAddrMap: {"alice@example.org": "alice@example.org team@example.org", "nosmtp@example.org": ""},
		table.RelayHost:   {"alice@example.org": "smtp+tls://smart.example:587", "@example.org": "smtp+tls://other.example", "bob@example.org": ""},
	},
	"mailcow": {
		table.Domain: {"example.org": "yes", "example.net": "yes", "backup.example": "no"},
		table.Alias: {
			"team@example.org": "alice@example.org bob@example.com", "@example.org": "postmaster@example.com", "temp@example.org": "alice@example.org",
			"sales@example.net": "alice@example.org", "past@example.org": "", "old@example.org": "",
		},
		table.Credentials: {
			"alice@example.org": "alice@example.org {BLF-CRYPT}$2y$05$BpL0Fx7DSUrIsQIEfXn0D.UsleviufEvwZVdFbiEkRrp5i7E.w1F6",
			"quiet@example.org": "", "sso@example.org": "", "partner.example": "us secret",
		},
		table.UserInfo:    {"alice@example.org": `-1 -1 ""`, "quiet@example.org": `-1 -1 ""`, "nobody@example.org": ""},
		table.MailAddrMap: {"alice@example.org": "@example.com alice@example.org sales@example.org", "root@example.org": "@"},
		table.RelayHost:   {"partner.example": "smtp+tls://partner.example@mx.partner.example:587", "plain.example": "smtp+tls://relay.example", "x.example": ""},
		table.TLSPolicy:   {"partner.example": "verify .partner.example", "plain.example": "may", "x.example": ""},
	},
	"ispmail": {
		table.Domain:      {"example.org": "yes", "example.net": "no"},
		table.Alias:       {"team@example.org": "alice@example.org bob@example.com", "@example.org": "postmaster@example.com", "alice@example.org": ""},
		table.Credentials: {"alice@example.org": "alice@example.org {SHA256-CRYPT}$5$fnncsJ9.bBF7e6e1$ettslRzyoEw.BgnQPy/CscyqT0L6XTRwsXau0kzaRg7", "bob@example.org": ""},
		table.UserInfo:    {"alice@example.org": `-1 -1 "/var/vmail/example.org/alice"`, "team@example.org": ""},
		table.MailAddrMap: {"alice@example.org": "alice@example.org team@example.org"},
	},
}

// The tables of docs/examples answer from the schemas that people have.
func TestExistingSchemas(t *testing.T) {
	for name, want := range existing {
		t.Run(name, func(t *testing.T) {
			tab := openExisting(t, name)
			if err := tab.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			for s, cases := range want {
				for key, answer := range cases {
					checkExisting(t, tab, s, key, answer)
				}
			}
			for _, key := range []string{"x'; DROP TABLE domain; --@example.org", "%@example.org", "_lice@example.org"} {
				checkExisting(t, tab, table.Alias, key, "")
				checkExisting(t, tab, table.Credentials, key, "")
			}
		})
	}
}

func checkExisting(t *testing.T, tab *table.Table, s table.Service, key, answer string) {
	t.Helper()
	if s == table.Domain {
		if ok, err := tab.Check(t.Context(), s, key); err != nil || ok != (answer == "yes") {
			t.Errorf("%s %q: %v, %v; want %s", s, key, ok, err, answer)
		}
		return
	}
	got, err := tabletest.Print(t.Context(), tab, s, key)
	if answer == "" {
		if !errors.Is(err, table.ErrNotFound) {
			t.Errorf("%s %q: %q, %v; want not found", s, key, got, err)
		}
		return
	}
	if err != nil || got != answer {
		t.Errorf("%s %q: %q, %v; want %q", s, key, got, err, answer)
	}
}

// openExisting loads a schema and opens the example with another conninfo.
func openExisting(t *testing.T, name string) *table.Table {
	t.Helper()
	url := pgtest.Database(t)
	schema, err := os.ReadFile(filepath.Join("testdata", name+".sql"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.PgConn().Exec(t.Context(), string(schema)).ReadAll(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", name+".table"))
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "table.conf")
	text = regexp.MustCompile(`(?m)^conninfo .*$`).ReplaceAllLiteral(text, []byte("conninfo "+url))
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), config.Table{Name: "mail", Kind: "postgres", Source: conf}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tab := table.New("mail", b, 0)
	t.Cleanup(func() { tab.Close() })
	return tab
}
