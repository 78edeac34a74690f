package mta

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tabard/backends/static"
	"tabard/internal/config"
	"tabard/internal/logging"
	"tabard/internal/logging/logtest"
	"tabard/lookup"
	"tabard/queue"
	"tabard/table"
)

// loggedWorld is a world whose log is in the program's own form.
func loggedWorld(t *testing.T) (*world, *logtest.Buffer) {
	t.Helper()
	out := new(logtest.Buffer)
	log, err := logging.New(out, "mta", logging.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, func(c *Config) { c.Logger = log }), out
}

// hostileNames are what DNS may say that a host is called, as a zone file has it.
func hostileNames() []string {
	return []string{
		`a\010mta\032delivery\032to=<victim@example.org>\032result=Ok.example`, // line feed, blanks
		`a\013b.example`, `a\000b.example`, `a\027[2J.example`, `a\127.example`, `a\128\255.example`, `\195\188.example`,
		`\"quoted\".example`, `a\"\032result=Ok.example`, `a\\b.example`, `a\032b.example`, `a\.b.example`, `a\@b.example`,
		`<b>.example`, `a%s%n.example`, `a\047\046\046\047b.example`, `*.example`, `-a.example`, `[192.0.2.3]`, `192.0.2.3`, `3221225987`,
		`xn--a.example`, `a_b.example`, strings.Repeat("a", 63) + ".example",
		strings.Repeat(strings.Repeat("a", 61)+".", 4),
	}
}

// A domain whose MX, or whose MX's alias, has a name like that is not bounced; a
// better one beside it gets the mail; the name can be seen in the log, and
// cannot forge a line of it.
func TestHostileNamesInDNS(t *testing.T) {
	w, log := loggedWorld(t)
	p := newPeer(t)
	w.at("192.0.2.3:25", p.start())
	names := hostileNames()
	var zone strings.Builder
	for i, name := range names {
		fmt.Fprintf(&zone, "bad%d.test. MX 10 %s.\n", i, strings.TrimSuffix(name, "."))
		fmt.Fprintf(&zone, "both%d.test. MX 10 %s.\nboth%d.test. MX 20 other.example.\n", i, strings.TrimSuffix(name, "."), i)
		fmt.Fprintf(&zone, "alias%d.test. MX 10 cname%d.test.\ncname%d.test. CNAME %s.\n", i, i, i, strings.TrimSuffix(name, "."))
	}
	w.dns.Zone(t, zone.String()+"other.example. A 192.0.2.3\n")
	w.start()
	var wants []string
	for i, name := range names {
		for _, kind := range []string{"bad", "both", "alias"} {
			want := queue.Deferred
			if kind == "both" {
				want = queue.Delivered
			}
			to := fmt.Sprintf("x@%s%d.test", kind, i)
			res := w.one(to)
			if res.Outcome != want || !harmless(res.Text) || !harmless(res.Remote) || strings.ContainsAny(res.Remote, " \"<>") {
				t.Errorf("%s by %s: %s from %q: %q", to, name, res.Outcome.String(), res.Remote, stat(res))
			}
			wants = append(wants, "<"+to+">"+want.String())
		}
	}
	if got := logged(t, "DNS", log.String()); strings.Join(got, "\n") != strings.Join(wants, "\n") {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wants, "\n"))
	}
	if len(p.got()) != len(names) {
		t.Errorf("%d messages arrived, want %d", len(p.got()), len(names))
	}
}

// notURLs are what a table may answer instead of a relay URL.
func notURLs() []string {
	return []string{
		"", " ", ",", "://", "tls://", "tls:///", "http://mx.example", "smtp+notls://mx.example", "tls://mx.example/path",
		"tls://mx.example:0", "tls://mx.example:65536", "tls://mx.example:smtp", "tls://mx example", "tls://@mx.example",
		"tls://[192.0.2.3", "tls://[mx.example]", "tls://2001:db8::1", "lmtp://mx.example", "backup://mx.example:25",
		"mx.example mx2.example", "javascript:alert(1)", "tls://mx.example\r\nRCPT TO:<victim@example.org>", "tls://mx\x00.example",
		"tls://mx.example\" result=Ok stat=\"250", "tls://\x1b[2Jmx.example", "tls://\xff\xfe", "{\"url\": \"tls://mx.example\"}",
		"tls://192.0.2.3, http://mx.example", "tls://192.0.2.3,,;", "tls://" + strings.Repeat("a", 2000), strings.Repeat("x", 1<<20), "\n250 ok",
	}
}

// A row that is no URL keeps the mail waiting, with a reason that names the
// table, and no server is connected to.
func TestTableValuesThatAreNoURLs(t *testing.T) {
	w, log := loggedWorld(t)
	p := newPeer(t)
	w.at("192.0.2.3:25", p.start()).at("192.0.2.3:465", p.l.Addr().String())
	pairs := []config.KeyVal{{Key: "good.test", Value: "smtp://192.0.2.3"}}
	for i, text := range notURLs() {
		pairs = append(pairs, config.KeyVal{Key: fmt.Sprintf("d%d.test", i), Value: text})
	}
	w.mta.lookup = lookupWith(t, static.NewMap(pairs, table.Options{}))
	w.start()
	wantResult(t, w.one("x@good.test"), queue.Delivered, 250)
	wants := []string{"<x@good.test>Ok"}
	for i, text := range notURLs() {
		res := w.deliver(job(w.queue.nextID(), fmt.Sprintf("x@d%d.test", i), fmt.Sprintf("y@d%d.test", i)))
		for n, r := range res {
			wantResult(t, r, queue.Deferred, 0, "4.3.0", "table routes")
			if !harmless(r.Text) || len(r.Text) > 3000 {
				t.Errorf("%.60q: %d bytes of text: %.500q", text, len(r.Text), r.Text)
			}
			wants = append(wants, fmt.Sprintf("<%c@d%d.test>TempFail", 'x'+n, i))
		}
	}
	if got := logged(t, "tables", log.String()); strings.Join(got, "\n") != strings.Join(wants, "\n") {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wants, "\n"))
	}
	if n := len(p.got()); n != 1 || p.connections() != 1 {
		t.Errorf("%d messages over %d connections", n, p.connections())
	}
}

// lookupWith is lookup with a table of relay hosts by domain.
func lookupWith(t *testing.T, routes table.Backend) lookup.Outbound {
	t.Helper()
	cfg, err := config.Parse("test.conf", []byte("table routes file:/none\naction \"out\" relay domain <routes>\nmatch from any for any action \"out\"\n"), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := lookup.New(t.Context(), lookup.Options{Config: cfg, Hostname: "us.example.net", Roots: x509.NewCertPool(),
		Open: func(_ context.Context, c config.Table) (table.Backend, error) {
			if c.Name != "routes" {
				return nil, errors.New("no such table")
			}
			return routes, nil
		}})
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
