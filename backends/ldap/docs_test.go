package ldap

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func manual(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/ldap.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every block of keys in the manual is read, with what it leaves to others.
func TestManualConf(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```conf\n(.*?)```").FindAllStringSubmatch(manual(t), -1)
	if len(blocks) < 3 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for _, b := range blocks {
		text := b[1]
		if !strings.Contains(text, "basedn") {
			text = "url ldap://h\nbasedn dc=x\n" + text
		}
		if _, err := parseConf(text, "mail"); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

// Every key that the manual names in a table is one.
func TestManualKeys(t *testing.T) {
	values := map[string]string{
		"url": "ldap://h", "starttls": "yes", "bind": "external", "timeout": "3", "page_size": "1", "referrals": "no", "scope": "one",
		"auth": "bind", "auth_dn": "uid=%s,dc=x", "auth_filter": "(uid=%s)", "auth_scope": "base", "username": "cn=x", "basedn": "dc=x",
		"auth_base": "dc=x", "alias_deref_filter": "(a=b)", "alias_deref_depth": "3", "alias_deref_limit": "4", "source_filter": "(a=b)", "regex_filter": "(a=b)",
	}
	seen := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z_`, ]+) \\|").FindAllStringSubmatch(manual(t), -1) {
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
			key := m[1]
			if !strings.Contains(key, "_") && values[key] == "" {
				continue // a service
			}
			value := values[key]
			if value == "" {
				value = "attribute"
			}
			seen++
			if err := newSettings("t").set(key, value); err != nil && !strings.Contains(row[1], "result_") && !postfixKey(key) {
				t.Errorf("%s: %v", key, err)
			}
		}
	}
	if seen < 25 {
		t.Errorf("only %d keys", seen)
	}
}

// postfixKey reports whether a key is in the table of Postfix' names.
func postfixKey(key string) bool {
	for _, k := range []string{"server_host", "version", "start_tls", "tls_ca_cert_file", "bind_dn", "bind_pw", "search_base", "scope", "special_result_attribute", "leaf_result_attribute", "recursion_limit", "expansion_limit"} {
		if k == key {
			return true
		}
	}
	return false
}
