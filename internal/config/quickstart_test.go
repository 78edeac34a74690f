package config

import (
	"strings"
	"testing"
)

func TestQuickstart(t *testing.T) {
	for _, dir := range []string{
		"/var/lib/tabard", "/home/a b/mail", `/tmp/it's "here"`, `/tmp/back\ slash\"q`, "/tmp/100%{user}", "/tmp/ümlaut#1",
	} {
		text, err := Quickstart(QuickstartParams{
			Dir: dir, Hostname: "localhost", SMTP: "127.0.0.1:2525", SMTPS: "[::1]:2465", Submission: "localhost:2587",
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse("tabard.conf", text, Options{})
		if err != nil {
			t.Fatalf("%s: %v\n%s", dir, err, text)
		}
		if len(c.Unsupported) > 0 {
			t.Errorf("%s: unsupported: %v", dir, c.Unsupported)
		}
		if c.Tables[0].Source != dir+"/mail.db" || c.Queue.Source != dir+"/queue.db" || c.Control != dir+"/tabard.sock" {
			t.Errorf("%s: paths %q %q %q", dir, c.Tables[0].Source, c.Queue.Source, c.Control)
		}
		if want := strings.ReplaceAll(dir, "%", "%%") + "/mail/%{dest.domain}/%{dest.user:lowercase|strip}"; c.Actions[0].Path != want {
			t.Errorf("%s: maildir %q, want %q", dir, c.Actions[0].Path, want)
		}
		if l := c.Listeners[1]; l.Host != "::1" || l.Port != "2465" || l.TLS != TLSImplicit || l.PKITables[0] != "mail" {
			t.Errorf("%s: listener %+v", dir, l)
		}
	}
}

func TestQuickstartErrors(t *testing.T) {
	good := QuickstartParams{Dir: "/d", Hostname: "localhost", SMTP: "h:1", SMTPS: "h:2", Submission: "h:3"}
	tests := []struct {
		want   string
		change func(*QuickstartParams)
	}{
		{"not an absolute path", func(p *QuickstartParams) { p.Dir = "mail" }},
		{"cannot be written", func(p *QuickstartParams) { p.Dir = "/a\nb" }},
		{"host name", func(p *QuickstartParams) { p.Hostname = "a b" }},
		{"expected host:port", func(p *QuickstartParams) { p.SMTP = "25" }},
		{"bad port", func(p *QuickstartParams) { p.SMTPS = "h:http" }},
	}
	for _, tt := range tests {
		p := good
		tt.change(&p)
		if _, err := Quickstart(p); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v; want %q", p, err, tt.want)
		}
	}
}

// The commented smarthost must work when a reader removes the marks.
func TestQuickstartSmarthost(t *testing.T) {
	text, err := Quickstart(QuickstartParams{Dir: "/d", Hostname: "mx.example.org", SMTP: "h:1", SMTPS: "h:2", Submission: "h:3"})
	if err != nil {
		t.Fatal(err)
	}
	s := strings.Replace(string(text), "\naction \"out\" relay domain", "\n#", 1)
	s = strings.ReplaceAll(s, "\n#table", "\ntable")
	s = strings.ReplaceAll(s, "\n#action", "\naction")
	c, err := Parse("tabard.conf", []byte(s), Options{})
	if err != nil || len(c.Unsupported) > 0 {
		t.Fatalf("%v %+v\n%s", err, c, s)
	}
}

func FuzzQuote(f *testing.F) {
	f.Add(`a "b" c\ d\\`)
	f.Add(`\" \`)
	f.Fuzz(func(t *testing.T, s string) {
		q, err := Quote(s)
		if err != nil {
			return
		}
		l := newParser(Options{}).lex
		l.push("x", []byte(q))
		if tok := l.next(); tok.kind != tokString || tok.text != s {
			t.Fatalf("%q is quoted as %s, which reads %s", s, q, tok)
		}
	})
}
