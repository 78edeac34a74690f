package config

import "testing"

func TestMatches(t *testing.T) {
	cond := func(table string) Cond { return Cond{Table: TableRef(table)} }
	not := func(c Cond) Cond { c.Negate = true; return c }
	regex := func(c Cond) Cond { c.Regex = true; return c }
	p := func(c Cond) *Cond { return &c }
	const dyn = "<dynamic:0>"
	tests := []struct {
		text string
		want Match // without its Action, which is always "a"
	}{
		{"", Match{}},
		{"from local for local", Match{}},
		{"from any for any", Match{From: FromAny, For: ForAny}},
		{"!from any ! for any", Match{From: FromAny, For: ForAny, FromCond: not(Cond{}), ForCond: not(Cond{})}},
		{"from socket", Match{From: FromSocket}},
		{"from src <list>", Match{From: FromSrc, FromCond: cond("list")}},
		{"!from src regex x", Match{From: FromSrc, FromCond: not(regex(cond(dyn)))}},
		{"from rdns", Match{From: FromRDNS}},
		{"from rdns <t> for any", Match{From: FromRDNS, FromCond: cond("t"), For: ForAny}},
		{"from rdns regex { a b }", Match{From: FromRDNS, FromCond: regex(cond(dyn))}},
		{"from auth for any", Match{From: FromAuth, For: ForAny}},
		{"from auth <map>", Match{From: FromAuth, FromCond: cond("map")}},
		{"from auth \"me\"", Match{From: FromAuth, FromCond: cond(dyn)}},
		{"from mail-from <map>", Match{From: FromMailFrom, FromCond: cond("map")}},
		{"for domain { a.example, b.example }", Match{For: ForDomain, ForCond: cond(dyn)}},
		{"for domain regex <t>", Match{For: ForDomain, ForCond: regex(cond("t"))}},
		{"for rcpt-to <t>", Match{For: ForRcptTo, ForCond: cond("t")}},
		{"tag X", Match{Tag: p(cond(dyn))}},
		{"!tag regex X", Match{Tag: p(not(regex(cond(dyn))))}},
		{"helo <t>", Match{Helo: p(cond("t"))}},
		{"tls", Match{TLS: &Cond{}}},
		{"!tls auth", Match{TLS: p(not(Cond{})), Auth: &Cond{}}},
		{"!auth <t>", Match{Auth: p(not(cond("t")))}},
		{"mail-from <map> rcpt-to regex x", Match{MailFrom: p(cond("map")), RcptTo: p(regex(cond(dyn)))}},
	}
	for _, tt := range tests {
		tt.want.Action = "a"
		same(t, tt.text, parse(t, "match "+tt.text+` action "a"`).Matches[0], tt.want)
	}
	same(t, "reject", parse(t, "match from any reject").Matches[0], Match{From: FromAny, Reject: true})
}

func TestFilters(t *testing.T) {
	tests := []struct {
		text string
		want Filter
	}{
		{"proc p", Filter{Proc: "p"}},
		{`proc-exec "cmd -x" user u group g chroot /c`, Filter{Command: "cmd -x", User: "u", Group: "g", Chroot: "/c"}},
		{"chain { f, g }", Filter{Chain: []string{"f", "g"}}},
		{"phase connect match fcrdns junk", Filter{Phase: "connect", CondKind: "fcrdns", Decision: "junk"}},
		{"phase connect match !rdns bypass", Filter{Phase: "connect", CondKind: "rdns", Cond: Cond{Negate: true}, Decision: "bypass"}},
		{"phase helo match rdns <t> junk", Filter{Phase: "helo", CondKind: "rdns", Cond: Cond{Table: "t"}, Decision: "junk"}},
		{`phase ehlo match src <t> reject "550 no"`, Filter{Phase: "ehlo", CondKind: "src", Cond: Cond{Table: "t"}, Decision: "reject", Value: "550 no"}},
		{`phase auth match auth disconnect "421 bye"`, Filter{Phase: "auth", CondKind: "auth", Decision: "disconnect", Value: "421 bye"}},
		{`phase mail-from match mail-from <map> rewrite "x@y"`, Filter{Phase: "mail-from", CondKind: "mail-from", Cond: Cond{Table: "map"}, Decision: "rewrite", Value: "x@y"}},
		{`phase rcpt-to match rcpt-to regex <t> report "hm"`, Filter{Phase: "rcpt-to", CondKind: "rcpt-to", Cond: Cond{Table: "t", Regex: true}, Decision: "report", Value: "hm"}},
		{"phase data match helo <t> junk", Filter{Phase: "data", CondKind: "helo", Cond: Cond{Table: "t"}, Decision: "junk"}},
		{`phase commit match auth <t> reject "550 no"`, Filter{Phase: "commit", CondKind: "auth", Cond: Cond{Table: "t"}, Decision: "reject", Value: "550 no"}},
	}
	for _, tt := range tests {
		tt.want.Name = "x"
		same(t, tt.text, parse(t, "filter x "+tt.text).Filters[2], tt.want)
	}
}
