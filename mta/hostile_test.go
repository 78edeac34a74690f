package mta

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"tabard/internal/dns"
	"tabard/internal/logging"
	"tabard/internal/logging/logtest"
	"tabard/lookup"
	"tabard/queue"
)

// What becomes of the two recipients of a message: D delivered, R tried again,
// B bounced. A misdeed belongs to a class, and a class has one outcome at each
// step of the dialogue: this table is the whole rule.
//
// Before MAIL nothing is said about the message, so nothing bounces. At RSET and
// QUIT the message's fate is decided, and at "MAIL again", the first command of a
// second message over the same session, a session that ended is replaced.
func outcomes() map[string]map[class]string {
	row := func(outcomes ...string) map[class]string {
		byClass := make(map[class]string)
		for c := inOrder; c <= chatty; c++ {
			byClass[c] = outcomes[c]
		}
		return byClass
	}
	opening := row("DD", "RR", "RR", "RR", "RR", "RR")
	return map[string]map[class]string{
		"greeting":   opening,
		"EHLO":       row("DD", "RR", "DD", "RR", "RR", "RR"), // 5xx: HELO
		"LHLO":       opening,
		"STARTTLS":   opening,
		"handshake":  row("RR", "RR", "RR", "RR", "RR", "RR"), // no reply is an answer
		"EHLO again": opening,
		"AUTH PLAIN": opening, "AUTH LOGIN": opening, "user name": opening, "password": opening,
		"MAIL":       row("DD", "RR", "BB", "RR", "RR", "RR"),
		"RCPT 1":     row("DD", "RD", "BD", "RR", "RR", "RR"),
		"RCPT 2":     row("DD", "DR", "DB", "RR", "RR", "RR"),
		"DATA":       row("DD", "RR", "BB", "RR", "RR", "RR"),
		"end":        row("DD", "RR", "BB", "RR", "RR", "DD"),
		"end 1":      row("DD", "RD", "BD", "RR", "RD", "DD"),
		"end 2":      row("DD", "DR", "DB", "DR", "DR", "DD"),
		"MAIL again": row("DD", "RR", "BB", "DD", "RR", "RR"),
		"RSET":       row("DD", "DD", "DD", "DD", "DD", "DD"),
		"QUIT":       row("DD", "DD", "DD", "DD", "DD", "DD"),
	}
}

// class is what an answer amounts to.
type class int

const (
	inOrder class = iota // a proper answer, however odd it looks
	notNow               // a clear 4xx
	never                // a clear 5xx
	silent               // none that could be read, or 421, which is an end (RFC 5321 section 3.8)
	astray               // a yes to something else: nobody knows what is being answered
	chatty               // a proper answer, and then another that nobody asked for
)

// venom is in the text of every reply: what would be a line of a log, an
// envelope field or a command, if anybody let it.
const venom = "5.1.1 x\r2026-01-01T00:00:00.000Z tabard/mta[1]: 0 mta delivery evpid=1.0 to=<victim@example.org> result=Ok " +
	"stat=\"250\" \" result=Ok \x00\x1b[2J\x7f\x85\xff\xe2\x80\xa8 RCPT TO:<victim@example.org> %s%n"

// wicked is one misdeed.
type wicked struct {
	name  string
	class class
	do    misdeed
	other map[string]class // where it is of another class
	only  string           // steps where it makes sense; empty: all
}

// replying answers with lines and goes on; whether that is a yes depends on the
// first line.
func replying(lines ...string) misdeed {
	return func(c *villainConn, _, _ string) (bool, bool) {
		return c.code(lines[0]), c.say(strings.Join(lines, "\r\n"))
	}
}

// raw sends bytes, which nobody can take for a yes, and then hangs or closes.
func raw(bytes string, hangs bool) misdeed {
	return func(c *villainConn, _, _ string) (bool, bool) {
		_, _ = io.WriteString(c, bytes)
		if hangs {
			_, _ = io.Copy(io.Discard, c.in)
		}
		return false, false
	}
}

// trickle writes a piece again and again.
func trickle(c *villainConn, pieces []string, pause time.Duration) bool {
	for _, piece := range pieces {
		if _, err := io.WriteString(c, piece); err != nil {
			return false
		}
		select {
		case <-time.After(pause):
		case <-c.raw.shut:
			return false
		}
	}
	return true
}

func wickedness() []wicked {
	return append(append(append(noReply(), wrongReplies()...), clearReplies()...), slowReplies()...)
}

// noReply are ways not to answer.
func noReply() []wicked {
	n := func(name string, do misdeed) wicked { return wicked{name: name, class: silent, do: do} }
	return []wicked{
		n("closes", raw("", false)),
		n("resets", func(c *villainConn, _, _ string) (bool, bool) {
			synctest.Wait() // what was said is read
			c.raw.reset()
			return false, false
		}),
		n("says nothing", raw("", true)),
		n("closes in a line", raw("250 half", false)),
		n("closes between lines", raw("250-half\r\n", false)),
		n("closes in a 550", raw("550-5.1.1 no\r\n550 5.1", false)),
		n("stops in a line", raw("250 half", true)),
		n("stops between lines", raw("550-half\r\n", true)),
		n("421", func(c *villainConn, _, _ string) (bool, bool) { c.say("421 4.3.2 " + venom); return false, false }),
		n("421 and stays", replying("421 4.3.2 "+venom)),
		n("10,000 lines of yes", raw(lines(250, 10000), false)),
		n("10,000 lines, and stays", raw(lines(550, 10000), true)),
		n("a long line", raw("250 "+strings.Repeat("x", 1<<16)+"\r\n", true)),
		n("a line without end", raw("550 "+strings.Repeat("x", 1<<16), true)),
		n("binary", raw("\xff\x00\x80\n\xfe\x16\x03\x03\x00\x00\n", false)),
		n("a TLS record", raw("\x16\x03\x03\x00\x02\x02\x28\r\n", true)),
		n("HTTP", raw("HTTP/1.1 400 Bad Request\r\nServer: "+venom+"\r\n\r\n", false)),
		n("echo", func(c *villainConn, line, _ string) (bool, bool) { return false, c.say(line) && line != "" }),
	}
}

// wrongReplies are answers to something else, or to nothing.
func wrongReplies() []wicked {
	n := func(name string, lines ...string) wicked {
		return wicked{name: name, class: silent, do: func(c *villainConn, _, _ string) (bool, bool) {
			return false, c.say(strings.Join(lines, "\r\n"))
		}}
	}
	w := func(code string, other map[string]class) wicked {
		return wicked{name: code, class: astray, do: replying(code + " " + venom), other: other}
	}
	return []wicked{
		n("two codes, first yes", "250-yes", "550 no"), n("two codes, first no", "550-no", "250 yes"),
		n("421 in the middle", "250-yes", "421 bye"), n("199", "199 "+venom), n("600", "600 "+venom), n("000", "000 x"),
		n("two digits", "25 ok"), n("four digits", "2500 ok"), n("no code", "hello "+venom), n("a blank first", " 250 ok"),
		n("a tab", "250\tok"), n("letters", "2a0 ok"), n("an empty line", ""), n("signs", "+50 ok"), n("full width digits", "２５０ ok"),
		w("354", map[string]class{"DATA": inOrder}),
		w("334", map[string]class{"AUTH LOGIN": inOrder, "user name": inOrder}),
		w("220", map[string]class{"greeting": inOrder, "STARTTLS": inOrder, "end": inOrder, "end 1": inOrder, "end 2": inOrder}),
		w("250", map[string]class{
			"EHLO": inOrder, "LHLO": inOrder, "MAIL": inOrder, "RCPT 1": inOrder, "RCPT 2": inOrder, "end": inOrder, "end 1": inOrder, "end 2": inOrder,
			"MAIL again": inOrder,
		}),
		{name: "another reply at once", class: chatty, do: func(c *villainConn, _, proper string) (bool, bool) {
			return c.code(proper), c.say(proper + "\r\n250 2.0.0 " + venom)
		}},
		{name: "another three at once", class: chatty, do: func(c *villainConn, _, proper string) (bool, bool) {
			return c.code(proper), c.say(proper + "\r\n250 ok\r\n354 go\r\n250 2.0.0 " + venom)
		}},
	}
}

// clearReplies leave no doubt, whatever else they are.
func clearReplies() []wicked {
	var all []wicked
	for _, text := range []string{"451 ", "454 5.7.0 ", "499 4.999.999 "} {
		all = append(all, wicked{name: text[:3], class: notNow, do: replying(text + venom)})
	}
	for _, text := range []string{"550 5.1.1 ", "554 4.0.0 ", "599 5.1000.1 "} {
		all = append(all, wicked{name: text[:3], class: never, do: replying(text + venom)})
	}
	return append(all,
		wicked{name: "450, nothing else", class: notNow, do: replying("450")},
		wicked{name: "550, nothing else", class: never, do: replying("550")},
		wicked{name: "550 of 500 lines", class: never, do: replying(lines(550, 500))},
		wicked{name: "550 with LF", class: never, do: replying("550-5.1.1 " + venom + "\n550-\n550 5.1.1")},
		wicked{name: "sizes", class: inOrder, only: "EHLO, LHLO", do: replying("250-x", "250-SIZE 18446744073709551616", "250-SIZE 1", "250-SIZE", "250 size -5")},
		wicked{name: "keywords", class: inOrder, only: "EHLO, LHLO", do: replying("250-x", "250-", "250- ", "250-=", "250-SIZE \x00", "250-PIPELINING\x00", "250-"+venom, "250 AUTH")},
		wicked{name: "1,000 keywords", class: inOrder, only: "EHLO, LHLO", do: replying(strings.Split(lines(250, 1000), "\r\n")...)},
	)
}

// slowReplies come by and by: in time, or not.
func slowReplies() []wicked {
	return []wicked{
		{name: "a byte a second", class: inOrder, do: func(c *villainConn, _, proper string) (bool, bool) {
			return c.code(proper), trickle(c, strings.Split(proper+"\r\n", ""), time.Second)
		}},
		{name: "a byte a minute", class: silent, do: func(c *villainConn, _, proper string) (bool, bool) {
			return false, trickle(c, strings.Split(proper+"\r\n", ""), time.Minute)
		}},
		{name: "a line a minute", class: silent, do: func(c *villainConn, _, proper string) (bool, bool) {
			return false, trickle(c, strings.SplitAfter(lines(250, 100), "\n"), time.Minute)
		}},
	}
}

// manner is a way to talk, and the steps that are tried out in it.
type manner struct {
	name   string
	scheme lookup.Scheme
	offers []string
	steps  []string
	brief  bool // what differs by the parser of replies alone is tried out elsewhere
}

func manners() []manner {
	return []manner{
		{"SMTP", "smtp", []string{"8BITMIME"}, []string{"greeting", "EHLO", "MAIL", "RCPT 1", "RCPT 2", "DATA", "end", "MAIL again", "RSET", "QUIT"}, false},
		{"SMTP with all extensions", "smtp", []string{"PIPELINING", "CHUNKING", "SIZE", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES"},
			[]string{"MAIL", "RCPT 1", "RCPT 2", "end", "MAIL again", "RSET", "QUIT"}, true},
		{"SMTP with PIPELINING", "smtp", []string{"PIPELINING"}, []string{"MAIL", "RCPT 1", "RCPT 2", "DATA", "end", "MAIL again", "RSET", "QUIT"}, true},
		{"STARTTLS and AUTH", "tls", nil, []string{"STARTTLS", "handshake", "EHLO again", "AUTH PLAIN", "AUTH LOGIN", "user name", "password"}, false},
		{"LMTP", "lmtp", []string{"8BITMIME"}, []string{"greeting", "LHLO", "MAIL", "RCPT 1", "RCPT 2", "DATA", "end 1", "end 2", "MAIL again", "RSET", "QUIT"}, false},
		{"LMTP with PIPELINING", "lmtp", []string{"PIPELINING", "CHUNKING", "DSN"}, []string{"RCPT 1", "RCPT 2", "end 1", "end 2", "MAIL again"}, true},
	}
}

// briefly lists the misdeeds for brief manners.
func briefly() []string {
	return []string{
		"closes", "resets", "says nothing", "closes between lines", "stops between lines", "421", "421 and stays", "10,000 lines, and stays",
		"echo", "two codes, first no", "354", "334", "250", "another reply at once", "another three at once", "451", "550", "550, nothing else",
		"a byte a second", "a byte a minute",
	}
}

// Whatever a server does, at every step of every dialogue, has the outcome of the
// table; and what it says forges nothing.
func TestHostileServers(t *testing.T) {
	table, all, id := outcomes(), wickedness(), newIdentity(t)
	for _, d := range manners() {
		for _, step := range d.steps {
			t.Run(d.name+"/"+step, func(t *testing.T) {
				t.Parallel()
				for _, bad := range all {
					if bad.only != "" && !strings.Contains(bad.only, step) || d.brief && !slices.Contains(briefly(), bad.name) {
						continue
					}
					c := bad.class
					if other, ok := bad.other[step]; ok {
						c = other
					}
					synctest.Test(t, func(t *testing.T) { testHostile(t, d, id, step, bad, table[step][c]) })
				}
			})
		}
	}
}

// identity is what a server in a bubble shows, where it is the year 2000.
type identity struct {
	root *x509.Certificate
	tls  *tls.Config
}

func newIdentity(t *testing.T) *identity {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: relayName}, DNSNames: []string{relayName},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<31, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert := sign(t, template, template, key, key)
	return &identity{cert, serverTLS(tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert})}
}

// hostileWorld is a world in a synctest bubble: the network is in memory, every
// host is at 192.0.2.3, and the timeouts are those of the RFC.
func hostileWorld(t *testing.T, dial DialFunc) *world {
	t.Helper()
	w := &world{t: t, queue: newMemQueue(), lookup: newMemLookup(), log: new(logtest.Buffer), done: make(chan error, 1)}
	log, err := logging.New(w.log, "mta", logging.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.queue.patience = time.Hour
	w.mta = New(Config{Hostname: "us.example.net", Resolver: oneAddress{}, Dial: dial, Logger: log}, w.lookup, w.queue)
	return w
}

// oneAddress resolves every name.
type oneAddress struct{}

// MX implements Resolver.
func (oneAddress) MX(_ context.Context, domain string) ([]dns.MX, error) {
	return []dns.MX{{Host: domain}}, nil
}

// Addrs implements Resolver.
func (oneAddress) Addrs(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.3")}, nil
}

func testHostile(t *testing.T, d manner, id *identity, step string, bad wicked, want string) {
	v := &villain{t: t, lmtp: d.scheme == "lmtp", offers: d.offers, step: step, do: bad.do, deny: step == "RSET"}
	w := hostileWorld(t, func(context.Context, string, string, string) (net.Conn, error) { return v.accept(), nil })
	t.Cleanup(v.wg.Wait)
	url := lookup.RelayURL{Scheme: d.scheme, Host: relayName, Port: "25"}
	if d.scheme == "tls" {
		w.lookup.roots.AddCert(id.root)
		w.lookup.creds["me"] = lookup.Credentials{User: "joe", Password: "s3cret"}
		v.tls, v.login, url.Label = id.tls, "LOGIN", "me"
		if step == "AUTH PLAIN" {
			v.login = "PLAIN"
		}
	}
	w.relay(url).start()
	began := time.Now()
	to := []string{"one@example.org", "two@example.org"}
	res := w.deliver(job(1, to...))
	jobs, first := 1, want
	if step == "RSET" || step == "MAIL again" {
		first = map[string]string{"RSET": "BB", "MAIL again": "DD"}[step]
		checkOutcome(t, bad.name+", first message", first, res)
		res = w.deliver(job(2, to...))
		jobs = 2
	}
	checkOutcome(t, bad.name, want, res)
	if took := time.Since(began); took > 15*time.Minute {
		t.Errorf("%s: took %v", bad.name, took)
	}
	<-time.After(time.Hour) // by then the session is idle, and ended
	v.check(bad.name, first, want, jobs)
	checkForged(t, bad.name, w.log.String(), res, jobs)
	for _, secret := range []string{"s3cret", encode("s3cret"), encode("\x00joe\x00s3cret")[:14]} {
		if strings.Contains(w.log.String()+res[0].Text+res[1].Text, secret) {
			t.Errorf("%s: the password is told: %s", bad.name, res[0].Text)
		}
	}
	if t.Failed() {
		t.Logf("%s: log\n%s", bad.name, w.log)
	}
}

func checkOutcome(t *testing.T, name, want string, res []queue.Result) {
	t.Helper()
	got := ""
	for _, r := range res {
		got += map[queue.Outcome]string{queue.Delivered: "D", queue.Deferred: "R", queue.Failed: "B", queue.Returned: "-"}[r.Outcome]
		checkResult(t, name, r)
	}
	if got != want {
		t.Errorf("%s: %s, want %s: %s; %s", name, got, want, stat(res[0]), stat(res[1]))
	}
}

// checkResult looks for what an envelope must not hold.
func checkResult(t *testing.T, name string, r queue.Result) {
	t.Helper()
	if r.Enhanced != "" && !enhanced.MatchString(r.Enhanced) || r.Remote != relayName || r.Code != 0 && (r.Code < 200 || r.Code > 599) || len(r.Text) > 2*maxReply {
		t.Errorf("%s: code %d, enhanced %q, remote %q, %d bytes of text", name, r.Code, r.Enhanced, r.Remote, len(r.Text))
	}
	if !harmless(strings.ReplaceAll(r.Text, "\n", "")) {
		t.Errorf("%s: the text is %q", name, r.Text)
	}
}

// check looks at what the server has: the messages that it took, and no open
// connection.
func (v *villain) check(name, first, second string, jobs int) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open != 0 || v.conns > 3 {
		v.t.Errorf("%s: %d connections, %d left open", name, v.conns, v.open)
	}
	have := map[string]int{}
	for _, m := range v.got {
		if m.body != testBody || !strings.HasPrefix(m.from, "FROM:<"+testFrom+">") {
			v.t.Errorf("%s: from %s: %q", name, m.from, m.body)
		}
		for _, to := range m.to {
			have[strings.Trim(strings.Fields(to)[0][3:], "<>")]++
		}
	}
	for i, to := range []string{"one@example.org", "two@example.org"} {
		want := strings.Count(first[i:i+1], "D")
		if jobs == 2 {
			want += strings.Count(second[i:i+1], "D")
		}
		if have[to] < want || have[to] > want && !strings.Contains(first+second, "R") {
			v.t.Errorf("%s: the server took %d messages for %s, want %d", name, have[to], to, want)
		}
		delete(have, to)
	}
	if len(have) != 0 {
		v.t.Errorf("%s: recipients from nowhere: %v", name, have)
	}
}

// checkForged wants every line of the log to be one of ours, and as many lines
// about deliveries as there were, with the results that there were.
func checkForged(t *testing.T, name, log string, last []queue.Result, jobs int) {
	t.Helper()
	results := logged(t, name, log)
	if len(results) != 2*jobs {
		t.Fatalf("%s: %d deliveries in the log: %q", name, len(results), results)
	}
	for i, r := range last {
		want := fmt.Sprintf("<%s@example.org>%s", []string{"one", "two"}[i], r.Outcome)
		if got := strings.Join(results[2*jobs-2:], " "); !strings.Contains(got, want) {
			t.Errorf("%s: the log has %q, want %q", name, got, want)
		}
	}
}

// The form of our log, and the pairs in a line.
var (
	logLine  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT[\d:.]+Z tabard/mta\[\d+\]:( [0-9a-f]{16})? (mta [a-z-]+)(?: [a-z]+=(?:[^ "\\]+|"(?:[^"\\]|\\.)*"))*\n$`)
	logPair  = regexp.MustCompile(` ([a-z]+)=([^ "\\]+|"(?:[^"\\]|\\.)*")`)
	enhanced = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}$`)
)

// logged returns recipient and result of every delivery in the log, all lines of
// which must be ours.
func logged(t *testing.T, name, log string) (results []string) {
	t.Helper()
	for text := range strings.Lines(log) {
		m := logLine.FindStringSubmatch(text)
		if m == nil || !harmless(strings.TrimSuffix(text, "\n")) {
			t.Errorf("%s: log line %q", name, text)
			continue
		}
		fields := map[string]string{}
		for _, m := range logPair.FindAllStringSubmatch(text, -1) {
			if _, twice := fields[m[1]]; twice {
				t.Errorf("%s: %s twice in %q", name, m[1], text)
			}
			fields[m[1]] = m[2]
		}
		if m[2] == "mta delivery" {
			results = append(results, fields["to"]+fields["result"])
		}
	}
	return results
}

// harmless reports whether a text can be shown as it is.
func harmless(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar })
}

// A server that cannot be reached, in every way there is, keeps the mail waiting.
func TestUnreachable(t *testing.T) {
	for name, err := range map[string]error{
		"refused": syscall.ECONNREFUSED, "no route": syscall.EHOSTUNREACH, "reset": syscall.ECONNRESET, "denied": syscall.EACCES, "no answer": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := hostileWorld(t, func(ctx context.Context, network, _, _ string) (net.Conn, error) {
				if err != nil {
					return nil, &net.OpError{Op: "dial", Net: network, Err: err}
				}
				<-ctx.Done()
				return nil, ctx.Err()
			})
			w.relay(lookup.RelayURL{Scheme: "smtp", Host: relayName, Port: "25"}).start()
			res := w.deliver(job(1, "one@example.org", "two@example.org"))
			checkOutcome(t, name, "RR", res)
			checkForged(t, name, w.log.String(), res, 1)
			wantResult(t, res[0], queue.Deferred, 0, "4.4.1", "connect to 192.0.2.3:25")
		})
	}
}
