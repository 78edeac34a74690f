package table

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseCredentials(t *testing.T) {
	for _, tt := range []struct {
		row            Row
		user, password string
	}{
		{Row{"$6$salt$hash"}, "key", "$6$salt$hash"}, {Row{"alice:$6$x"}, "alice", "$6$x"}, {Row{"alice:a:b"}, "alice", "a:b"},
		{Row{"alice", "pw:x"}, "alice", "pw:x"}, {Row{"", "secret"}, "key", "secret"},
	} {
		c, err := ParseCredentials("key", tt.row)
		if err != nil || c.User != tt.user || c.Password != tt.password {
			t.Errorf("%q: %q %q, %v", tt.row, c.User, c.Password, err)
		}
	}
	for _, bad := range []Row{nil, {""}, {"ab"}, {":abc"}, {"abc:"}, {"a", ""}, {"a", "b", "c"}, {"a:secret\n"}, {"a\x00", "secret"}} {
		if c, err := ParseCredentials("key", bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %q, %v", bad, c.User, err)
		}
	}
	c, _ := ParseCredentials("k", Row{"a", "secret"})
	if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); strings.Contains(s, "secret") {
		t.Errorf("printing tells the password: %s", s)
	}
}

func TestParseUserInfo(t *testing.T) {
	for _, tt := range []struct {
		row  Row
		want Account
	}{
		{Row{"1000:100:/home/a"}, Account{1000, 100, "/home/a"}}, {Row{"1000", "100", "/home/a/"}, Account{1000, 100, "/home/a"}},
		{Row{"", "", ""}, Account{-1, -1, ""}}, {Row{"::"}, Account{-1, -1, ""}}, {Row{"0:0:/a:b"}, Account{0, 0, "/a:b"}},
		{Row{"4294967294", "1", "/a/../b"}, Account{4294967294, 1, "/b"}},
	} {
		if got, err := ParseUserInfo(tt.row); got != tt.want || err != nil {
			t.Errorf("%q: %+v, %v", tt.row, got, err)
		}
	}
	for _, bad := range []Row{nil, {""}, {"1:2"}, {"a:1:/"}, {"-1:1:/"}, {"1:4294967295:/"}, {"1:1:rel"}, {"1", "2"}, {"1", "1", "/a\n"}, {" 1:1:/"}} {
		if got, err := ParseUserInfo(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestParseValues(t *testing.T) {
	if ips, err := ParseSource(Row{"192.0.2.1, [2001:db8::1]", "ipv6:::1"}); err != nil || fmt.Sprint(ips) != "[192.0.2.1 2001:db8::1 ::1]" {
		t.Errorf("sources = %v, %v", ips, err)
	}
	if name, err := ParseAddrName(Row{" Mx.Example.org "}); err != nil || name != "mx.example.org" {
		t.Errorf("addrname = %q, %v", name, err)
	}
	for _, tt := range []struct {
		row  Row
		want string // empty: an error
	}{
		{Row{"smtp://a, tls://b", "ssl://c"}, "[{smtp://a 0 -1} {tls://b 0 -1} {ssl://c 0 -1}]"},
		{Row{"smtp://a", "10", "5", "tls://b", "20", "0"}, "[{smtp://a 10 5} {tls://b 20 0}]"},
		{Row{"smtp://a 10 5, tls://b\t-3, c"}, "[{smtp://a 10 5} {tls://b -3 -1} {c 0 -1}]"},
		{Row{"10", "smtp://a"}, ""},
		{Row{"smtp://a", "1", "2", "3"}, ""},
		{Row{"smtp://a", "1", "-2"}, ""},
	} {
		got, err := ParseRelayHosts(tt.row)
		if (err == nil) != (tt.want != "") || err == nil && fmt.Sprint(got) != tt.want {
			t.Errorf("relay hosts of %q = %v, %v; want %s", tt.row, got, err, tt.want)
		}
	}
	if m, err := ParseMailAddrs(Row{"a@b, @c", "d"}); err != nil || !MatchAnyMail(m, "x@c", "+") || MatchAnyMail(m, "x@b", "+") {
		t.Errorf("mailaddrmap = %v, %v", m, err)
	}
	for name, err := range map[string]error{
		"source":      errOf(ParseSource(Row{"10.0.0.0/8"})),
		"no source":   errOf(ParseSource(Row{""})),
		"addrname":    errOf(ParseAddrName(Row{"a b"})),
		"no addrname": errOf(ParseAddrName(nil)),
		"relayhost":   errOf(ParseRelayHosts(Row{" , "})),
		"mailaddrmap": errOf(ParseMailAddrs(Row{"a b@c"})),
		"no map":      errOf(ParseMailAddrs(nil)),
		"certauth":    errOf(ParseCertAuth(Row{"a\nb"})),
		"certauth 2":  errOf(ParseCertAuth(Row{"a", "b"})),
		"config":      errOf(ParseConfig(nil)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

func FuzzParseValues(f *testing.F) {
	f.Add("1000:100:/home/a", "x")
	f.Add("192.0.2.1", "a:b:c")
	f.Add("mx.example.org, b", "[::1]/64")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, row := range []Row{{a}, {a, b}, {a, b, a}} {
			if v, err := ParseUserInfo(row); err == nil && (v.UID < -1 || v.GID < -1 || v.Home != "" && v.Home[0] != '/') {
				t.Fatalf("%q: %+v", row, v)
			}
			if v, err := ParseCredentials("k", row); err == nil && (v.Password == "" || v.User == "") {
				t.Fatalf("%q: %q", row, v.User)
			}
			ParseSource(row)
			ParseAddrName(row)
			ParseRelayHosts(row)
			ParseMailAddrs(row)
		}
		if n, err := ParseNetAddr(a); err == nil && !n.Local && !n.Prefix.IsValid() {
			t.Fatalf("%q: %+v", a, n)
		}
	})
}
