package backends

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tabard/internal/config"
)

func TestNeedsOf(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("real/mail.db", "")
	link := filepath.Join(dir, "mail.db")
	if err := os.Symlink(filepath.Join(real, "mail.db"), link); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		kind, source string
		want         Needs
		err          string
	}{
		"static":               {kind: "static"},
		"file":                 {kind: "file", source: "/etc/aliases"},
		"sqlite":               {kind: "sqlite", source: "/var/lib/t/mail.db", want: Needs{Dirs: []string{"/var/lib/t"}}},
		"sqlite by a link":     {kind: "sqlite", source: link, want: Needs{Dirs: []string{dir, real}}},
		"sqlite by a file":     {kind: "sqlite", source: write("s.conf", "dbpath /srv/x.db\nquery_alias SELECT a FROM t WHERE b = {key}\n"), want: Needs{Dirs: []string{"/srv"}}},
		"sqlite without file":  {kind: "sqlite", source: "/none.conf", err: "no such file"},
		"postgres URL":         {kind: "postgres", source: "postgres://u:secret@db.example:6543/d?sslmode=disable", want: Needs{Ports: []uint16{6543}}},
		"postgres, two hosts":  {kind: "postgres", source: "postgres://a:1111,b:2222/d", want: Needs{Ports: []uint16{1111, 2222}}},
		"postgres by a socket": {kind: "postgres", source: "postgres:///d?host=/run/postgresql"},
		"postgres by a file":   {kind: "postgres", source: write("p.conf", "conninfo host=h port=7777\n"), want: Needs{Ports: []uint16{7777}}},
		"ldap":                 {kind: "ldap", source: "ldap://h/dc=x", want: Needs{Ports: []uint16{389}}},
		"ldaps and others":     {kind: "ldap", source: "ldaps://h,h2:6360/dc=x", want: Needs{Ports: []uint16{636, 6360}}},
		"ldap by a socket":     {kind: "ldap", source: "ldapi://%2Frun%2Fldapi/dc=x"},
		"ldap by a file":       {kind: "ldap", source: write("l.conf", "url ldap://h:3890\nbasedn dc=x\nalias_filter (a=%s)\nalias_attributes m\n"), want: Needs{Ports: []uint16{3890}}},
		"socketmap":            {kind: "socketmap", source: "inet:127.0.0.1:8461:x", want: Needs{Ports: []uint16{8461}}},
		"socketmap by name":    {kind: "socketmap", source: "inet:127.0.0.1:smtp:x", want: Needs{Ports: []uint16{25}}},
		"socketmap, a socket":  {kind: "socketmap", source: "unix:/run/s:x"},
		"program":              {kind: "proc", source: "/bin/p", want: Needs{Programs: []string{"t"}}},
		"program of a type":    {kind: "redis", source: "/etc/redis.conf", want: Needs{Programs: []string{"t"}}},
	} {
		got, err := NeedsOf([]config.Table{{Name: "t", Kind: tt.kind, Source: tt.source}})
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "table t")) {
			t.Errorf("%s: error %v, want %q", name, err, tt.err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
		if !slices.Equal(got.Dirs, tt.want.Dirs) || !slices.Equal(got.Ports, tt.want.Ports) || !slices.Equal(got.Programs, tt.want.Programs) {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// One table that is not understood does not hide what the others need.
func TestNeedsOfTheOthers(t *testing.T) {
	got, err := NeedsOf([]config.Table{
		{Name: "a", Kind: "postgres", Source: "postgres://h:1/d"}, {Name: "bad", Kind: "sqlite", Source: "/none.conf"}, {Name: "b", Kind: "socketmap", Source: "inet:h:1:x"},
	})
	if err == nil || !slices.Equal(got.Ports, []uint16{1}) {
		t.Errorf("%+v, %v", got, err)
	}
}
