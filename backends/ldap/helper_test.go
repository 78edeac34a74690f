package ldap

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/internal/ldaptest"
	"tabard/table"
)

// directory starts a slapd that ends with the test.
func directory(t testing.TB, opt ldaptest.Options) *ldaptest.Server {
	t.Helper()
	for i, s := range opt.Schemas {
		opt.Schemas[i] = filepath.Join("testdata", s)
	}
	if opt.Schemas == nil {
		opt.Schemas = []string{filepath.Join("testdata", "suite.schema")}
	}
	s, err := ldaptest.New(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func load(t testing.TB, s *ldaptest.Server, ldif string) {
	t.Helper()
	if err := s.Load(context.Background(), ldif); err != nil {
		t.Fatal(err)
	}
}

// openConf opens a table by the text of a configuration file. The server's
// address and root DN come before it.
func openConf(t testing.TB, s *ldaptest.Server, lines ...string) *Table {
	t.Helper()
	text := fmt.Sprintf("url %s\nusername %s\npassword %s\n", s.URL, s.RootDN, ldaptest.Password)
	return openText(t, text+strings.Join(lines, "\n"))
}

func openText(t testing.TB, text string) *Table {
	t.Helper()
	b, err := tryOpen(t, text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func tryOpen(t testing.TB, text string) (*Table, error) {
	t.Helper()
	b, err := Open(context.Background(), config.Table{Name: "mail", Source: writeFile(t, text)}, table.Options{})
	if err != nil {
		return nil, err
	}
	return b.(*Table), nil
}

func openURL(t testing.TB, url string) *Table {
	t.Helper()
	b, err := Open(context.Background(), config.Table{Name: "mail", Source: url}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b.(*Table)
}

func writeFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "table.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// attr is one line of LDIF, with any value.
func attr(name, value string) string {
	return name + ":: " + base64.StdEncoding.EncodeToString([]byte(value)) + "\n"
}

// within bounds a question.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func overwrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// established counts our ends of connections to a port of the loopback.
func established(t testing.TB, port string) int {
	t.Helper()
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", n)) && f[3] == "01" {
			count++
		}
	}
	return count
}
