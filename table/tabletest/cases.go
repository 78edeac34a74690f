package tabletest

import "tabard/table"

type lookupTest struct {
	data  Data
	cases []lookupCase
}

func mapping(s table.Service, records ...Record) Data {
	return Data{Service: s, Mapping: true, Records: records}
}

// lookupTests hold keys in mixed case: they are found in any.
func lookupTests() []lookupTest {
	return []lookupTest{
		{mapping(table.Alias,
			Record{"root", []string{"admin"}},
			Record{"Team@Example.ORG", []string{"alice", "bob@example.net", "|/bin/cat"}},
			Record{"@example.com", []string{"catchall"}},
			Record{"gone", []string{"error:550 5.1.1 no longer here"}},
		), []lookupCase{
			{"root", "admin"}, {"ROOT", "admin"}, {"team@example.org", "alice bob@example.net |/bin/cat"},
			{"@EXAMPLE.com", "catchall"}, {"gone", "error:550 5.1.1 no longer here"},
			// No walking: which keys to try is the caller's.
			{"x@example.com", ""}, {"root+tag", ""}, {"nobody", ""}, {"", ""},
		}},
		{mapping(table.Credentials,
			Record{"alice", []string{"alice", "$6$salt$hash"}},
			Record{"bob@example.org", []string{"bob@example.org", "$2y$05$abc:def"}},
		), []lookupCase{
			{"alice", "alice $6$salt$hash"}, {"ALICE", "alice $6$salt$hash"},
			{"bob@example.org", "bob@example.org $2y$05$abc:def"}, {"carol", ""},
		}},
		{mapping(table.UserInfo,
			Record{"alice", []string{"1000", "100", "/home/alice"}},
			Record{"virtual@example.org", []string{"", "", ""}},
			Record{"nohome", []string{"0", "0", ""}},
		), []lookupCase{
			{"alice", `1000 100 "/home/alice"`}, {"Alice", `1000 100 "/home/alice"`},
			{"virtual@example.org", `-1 -1 ""`}, {"nohome", `0 0 ""`}, {"bob", ""},
		}},
		{mapping(table.AddrName,
			Record{"192.0.2.1", []string{"mx1.example.org"}},
			Record{"[2001:db8::1]", []string{"mx2.example.org"}},
		), []lookupCase{
			{"192.0.2.1", "mx1.example.org"}, {"[2001:db8::1]", "mx2.example.org"},
			{"[2001:DB8::1]", "mx2.example.org"}, {"192.0.2.2", ""},
		}},
		{mapping(table.MailAddrMap,
			Record{"alice", []string{"alice@example.org", "@example.net"}},
		), []lookupCase{
			{"alice", "alice@example.org @example.net"}, {"ALICE", "alice@example.org @example.net"}, {"bob", ""},
		}},
		{mapping(table.RelayHost,
			Record{"example.org", []string{"tls://a.example", "smtp://b.example:2525"}},
			Record{"*.example.org", []string{"smtps://c@c.example"}},
			Record{"sender@example.com", []string{"tls://d.example"}},
		), []lookupCase{
			{"example.org", "tls://a.example smtp://b.example:2525"}, {"EXAMPLE.org", "tls://a.example smtp://b.example:2525"},
			{"*.example.org", "smtps://c@c.example"}, {"x.example.org", ""}, {"sender@example.com", "tls://d.example"},
		}},
		{mapping(table.CertAuth,
			Record{"email:Alice@example.org", []string{"alice"}},
			Record{"dns:host.example.org", []string{"host$"}},
			Record{"dn:CN=Bob \\2B Co\\, Ltd,O=Example", []string{"bob@example.org"}},
		), []lookupCase{
			{"email:alice@example.org", "alice"}, {"dns:HOST.example.org", "host$"}, {"dns:other.example.org", ""},
			{"dn:CN=Bob \\2B Co\\, Ltd,O=Example", "bob@example.org"}, {"dn:CN=Bob", ""},
		}},
		{mapping(table.TLSPolicy,
			Record{"example.org", []string{"encrypt"}},
			Record{"Example.NET", []string{"secure match=.mail.example:mx.example"}},
		), []lookupCase{
			{"example.org", "encrypt"}, {"example.net", "secure .mail.example:mx.example"}, {"example.com", ""},
		}},
		{mapping(table.Config,
			Record{"default", []string{"match from any reject # one, two: three | four"}},
		), []lookupCase{
			{"default", "match from any reject # one, two: three | four"}, {"other", ""},
		}},
		{mapping(table.DKIM,
			Record{"example.org", []string{"s2026", "file:/etc/dkim/example.org.pem"}},
			Record{"Example.NET", []string{"ed", "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g"}},
		), []lookupCase{
			{"example.org", "s2026:<nil>/etc/dkim/example.org.pem"}, {"EXAMPLE.net", "ed:ed25519.PrivateKey"}, {"example.com", ""},
		}},
	}
}

type checkTest struct {
	data    Data
	yes, no []string
}

func checkTests() []checkTest {
	return []checkTest{
		{Data{Service: table.Domain, Records: list("example.org", "*.Example.NET", "mail*.example.com")},
			[]string{"example.org", "EXAMPLE.ORG", "a.example.net", "A.EXAMPLE.NET", "mail1.example.com"},
			[]string{"a.example.org", "example.net", "a.b.example.net", "", "example.com", "web.example.com", "*"}},
		{Data{Service: table.NetAddr, Records: list("192.0.2.0/24", "10/8", "198.51.100.7", "2001:db8::/32", "::1", "local")},
			[]string{"192.0.2.1", "10.255.0.1", "198.51.100.7", "[2001:db8:1::5]", "[::1]", "local", "LOCAL"},
			[]string{"192.0.3.1", "11.0.0.1", "198.51.100.8", "[2001:db9::1]", "[::2]", "garbage", "", "[::ffff:11.0.0.1]"}},
		{Data{Service: table.MailAddr, Records: list("bob", "Alice@example.org", "@example.net", "al+t@z.example", "@*.example.com")},
			[]string{"bob@any.example", "Bob+tag@any.example", "alice@EXAMPLE.org", "alice+x@example.org", "who@example.net", "al+t@z.example", "x@a.example.com"},
			[]string{"alice@example.com", "al@z.example", "al+u@z.example", "@", "x@a.b.example.com", "x@example.com", "carol", ""}},
		{Data{Service: table.String, Records: list("Submission", "alice")},
			[]string{"submission", "SUBMISSION", "alice"}, []string{"sub", "submissions", "", "%"}},
		{Data{Service: table.Regex, Records: list(`^abc[0-9]+@`, `(?i)\.Example\.org$`, `^[[:upper:]]+$`)},
			[]string{"abc12@x", "a.EXAMPLE.org", "ABC"}, []string{"ABC12@x", "xabc1@x", "a.example.orgs", "abc", ""}},
		{Data{Service: table.Credentials, Mapping: true, Records: []Record{{"alice", []string{"alice", "$6$salt$hash"}}}},
			[]string{"alice", "Alice"}, []string{"bob", "alic", ""}},
	}
}
