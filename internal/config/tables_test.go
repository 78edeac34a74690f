package config

import (
	"testing"
	"time"
)

func TestTables(t *testing.T) {
	tests := []struct {
		text string
		want Table
	}{
		{"{ a, b }", Table{Kind: "static", List: []string{"a", "b"}}},
		{"{\n a\n b \"c d\",\n}", Table{Kind: "static", List: []string{"a", "b", "c d"}}},
		{"{ }", Table{Kind: "static"}},
		{`{ a = 1, "b c" => "d, e" }`, Table{Kind: "static", Map: []KeyVal{{"a", "1"}, {"b c", "d, e"}}}},
		{"{ a = smtp://x:25\n b=y }", Table{Kind: "static", Map: []KeyVal{{"a", "smtp://x:25"}, {"b", "y"}}}},
		{"{ 10/8, 192.0.2.0/24 ::1 \"local\" }", Table{Kind: "static", List: []string{"10/8", "192.0.2.0/24", "::1", "local"}}},
		{`"/a b"`, Table{Kind: "file", Source: "/a b"}},
		{"/a", Table{Kind: "file", Source: "/a"}},
		{"file:/a", Table{Kind: "file", Source: "/a"}},
		{"static:/a", Table{Kind: "file", Source: "/a"}},
		{"sqlite:/a.db", Table{Kind: "sqlite", Source: "/a.db"}},
		{"sqlite:/a.conf", Table{Kind: "sqlite", Source: "/a.conf"}},
		{"postgres:/a.conf", Table{Kind: "postgres", Source: "/a.conf"}},
		{"postgres://u:p@h/db?sslmode=disable", Table{Kind: "postgres", Source: "postgres://u:p@h/db?sslmode=disable"}},
		{"postgresql:///db", Table{Kind: "postgres", Source: "postgresql:///db"}},
		{"ldap:/a.conf", Table{Kind: "ldap", Source: "/a.conf"}},
		{"ldaps://h/dc=a", Table{Kind: "ldap", Source: "ldaps://h/dc=a"}},
		{"ldapi:///", Table{Kind: "ldap", Source: "ldapi:///"}},
		{`"proc:/usr/libexec/t -x y"`, Table{Kind: "proc", Source: "/usr/libexec/t -x y"}},
		{"socketmap:inet:127.0.0.1:90:name", Table{Kind: "socketmap", Source: "inet:127.0.0.1:90:name"}},
		{"redis:/a.conf", Table{Kind: "redis", Source: "/a.conf"}},
		{"getpwnam", Table{Kind: "getpwnam"}},
		{"sqlite:/a cache off", Table{Kind: "sqlite", Source: "/a", Cache: TableCache{Off: true}}},
		{"sqlite:/a stale-ttl 0s cache ttl 5m", Table{Kind: "sqlite", Source: "/a", Cache: TableCache{TTL: 5 * time.Minute, StaleTTL: -1}}},
		{"sqlite:/a default-scheme plain-md5 refuse-weak allow-plain", Table{Kind: "sqlite", Source: "/a", Auth: TableAuth{DefaultScheme: "plain-md5", AllowPlain: true, RefuseWeak: true}}},
		{"sqlite:/a cache size 8M ttl 1s stale-ttl 4h", Table{Kind: "sqlite", Source: "/a", Cache: TableCache{TTL: time.Second, Size: 8 << 20, StaleTTL: 4 * time.Hour}}},
	}
	for _, tt := range tests {
		c := parse(t, "table x "+tt.text)
		tt.want.Name = "x"
		same(t, tt.text, c.Tables[len(c.Tables)-1], tt.want)
	}
}

func TestDynamicNames(t *testing.T) {
	c := parse(t, "match for domain x.example reject\nmatch for domain { y.example } rcpt-to <t> tag z reject")
	var names []string
	for _, table := range c.Tables[3:] {
		names = append(names, table.Name)
	}
	same(t, "names", names, []string{"<dynamic:0>", "<dynamic:1>", "<dynamic:2>"})
	same(t, "use", c.Matches[1].Tag.Table, TableRef("<dynamic:2>"))
}
