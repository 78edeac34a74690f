package mta

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tabard/internal/dns"
	"tabard/lookup"
	"tabard/queue"
)

const backupZone = `
d.example.        MX 10 best.example.
d.example.        MX 20 mx2.example.
d.example.        MX 20 equal.example.
d.example.        MX 30 worse.example.
twice.example.    MX 10 best.example.
twice.example.    MX 20 us.example.net.
twice.example.    MX 25 equal.example.
twice.example.    MX 30 mx2.example.
first.example.    MX 10 mx2.example.
first.example.    MX 20 worse.example.
others.example.   MX 10 best.example.
others.example.   MX 20 worse.example.
byaddr.example.   MX 10 best.example.
byaddr.example.   MX 20 ours.example.
byaddr.example.   MX 30 worse.example.
null.example.     MX 0 .
implicit.example. A 192.0.2.1
provider.example. MX 10 best.example.
xn--bcher-kva.example. MX 10 best.example.
xn--bcher-kva.example. MX 20 xn--mx-yka.example.
best.example.     A 192.0.2.1
equal.example.    A 192.0.2.2
mx2.example.      A 192.0.2.2
worse.example.    A 192.0.2.2
ours.example.     A 192.0.2.99
`

// A backup delivers to better MXs only, whatever else there is.
func TestBackup(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.99")} })
	w.dns.Zone(t, backupZone)
	best, wrong := newPeer(t), newPeer(t)
	w.at("192.0.2.1:25", best.start()).at("192.0.2.2:25", wrong.start()).at("192.0.2.99:25", wrong.l.Addr().String())
	for domain, r := range map[string]lookup.Route{
		"xn--bcher-kva.example": {BackupMX: "mxü.example"},
		"gone.example":          {Hosts: []lookup.RelayURL{{Scheme: lookup.SchemeBackup, Host: "mx2.example", Port: "25"}}},
	} {
		w.lookup.byDomain[domain] = r
	}
	w.lookup.set(lookup.Route{BackupMX: "MX2.example"})
	w.start()
	for _, tt := range []struct {
		to      string
		outcome queue.Outcome
		parts   []string
	}{
		{"x@d.example", queue.Delivered, nil},
		{"x@twice.example", queue.Delivered, nil},
		{"x@byaddr.example", queue.Delivered, nil},
		{"x@xn--bcher-kva.example", queue.Delivered, nil},
		{"x@first.example", queue.Deferred, []string{"4.3.5", "no MX of first.example is better than the backup MX MX2.example"}},
		{"x@others.example", queue.Deferred, []string{"4.3.5", "MX2.example is not among the MXs of others.example"}},
		{"x@implicit.example", queue.Deferred, []string{"4.3.5", "is not among"}},
		{"x@null.example", queue.Failed, []string{"5.1.10"}},
		{"x@gone.example", queue.Failed, []string{"5.1.2"}},
	} {
		wantResult(t, w.one(tt.to), tt.outcome, 0, tt.parts...)
	}
	if wrong.connections() != 0 {
		t.Error("an MX that is no better was connected to")
	}
}

// A better MX that is down is no reason to go to an equal one.
func TestBackupWaitsForBetter(t *testing.T) {
	w, wrong := newWorld(t), newPeer(t)
	w.dns.Zone(t, backupZone)
	w.at("192.0.2.2:25", wrong.start())
	w.relay(lookup.RelayURL{Scheme: lookup.SchemeBackup, Host: "mx2.example", Port: "25"}).start()
	wantResult(t, w.one("x@d.example"), queue.Deferred, 0, "4.4.1")
	if wrong.connections() != 0 {
		t.Error("an MX that is no better was connected to")
	}
}

// `backup tls` asks of the better MX what `relay tls` asks of any.
func TestBackupWithTLS(t *testing.T) {
	w, p := newWorld(t), newPeer(t)
	w.dns.Zone(t, backupZone)
	w.at("192.0.2.1:25", p.start())
	w.lookup.set(lookup.Route{BackupMX: "mx2.example", TLS: true})
	wantResult(t, w.start().one("MARK@d.example"), queue.Deferred, 0, "4.7.5")
	if strings.Contains(p.onWire(), "MARK") {
		t.Error("in clear")
	}
}

// +mx asks for the MXs of a relay, or of the mail's domain.
func TestRelayByMX(t *testing.T) {
	w, p := newWorld(t), newPeer(t)
	w.dns.Zone(t, backupZone)
	w.at("192.0.2.1:25", p.start()).at("192.0.2.1:26", p.l.Addr().String())
	mx := func(host, port string) []lookup.RelayURL {
		return []lookup.RelayURL{{Scheme: lookup.SchemeSMTPTLS, Host: host, Port: port, MX: true}}
	}
	routes := map[string][]lookup.RelayURL{
		"named.example": mx("provider.example", "26"), "others.example": mx("", "25"), "null.example": mx("", "25"),
		"badrelay.example": mx("null.example", "25"), "gonerelay.example": mx("nowhere.example", "25"),
		"either.example": append(mx("null.example", "25"), mx("provider.example", "26")...),
		"both.example":   append(mx("", "25"), mx("nowhere.example", "25")...),
	}
	for domain, urls := range routes {
		w.lookup.byDomain[domain] = lookup.Route{Hosts: urls}
	}
	w.start()
	for _, tt := range []struct {
		to      string
		outcome queue.Outcome
		parts   []string
	}{
		{"x@named.example", queue.Delivered, nil},
		{"x@others.example", queue.Delivered, nil},
		{"x@either.example", queue.Delivered, nil},
		{"x@null.example", queue.Failed, []string{"5.1.10"}},
		{"x@badrelay.example", queue.Deferred, []string{"4.4.4", "relay host: domain null.example does not accept mail"}},
		{"x@gonerelay.example", queue.Deferred, []string{"4.4.4", "nowhere.example"}},
		{"x@both.example", queue.Deferred, []string{"4.4.4"}}, // its own domain does not exist, but the relay may come to
	} {
		wantResult(t, w.one(tt.to), tt.outcome, 0, tt.parts...)
	}
	if w.dialled("192.0.2.1:26") != 2 || w.dialled("192.0.2.1:25") != 1 {
		t.Errorf("%d connections to the relay's port, %d to 25", w.dialled("192.0.2.1:26"), w.dialled("192.0.2.1:25"))
	}
}

// Whatever DNS names as our address, mail does not come back to us by it.
func TestOwnAddresses(t *testing.T) {
	w := newWorld(t)
	w.dns.Zone(t, `
lo.example.    A 127.0.0.2
zero.example.  MX 10 any.zero.example.
any.zero.example. A 0.0.0.0
six.example.   AAAA ::
multi.example. A 224.0.0.1
mix.example.   A 127.0.0.1
mix.example.   MX 10 mixed.example.
mixed.example. A 192.0.2.1
mixed.example. AAAA ff02::1
`)
	p := newPeer(t)
	w.at("192.0.2.1:25", p.start()).start()
	for to, part := range map[string]string{
		"x@lo.example": "5.4.6", "x@zero.example": "loops back to myself", "x@six.example": "5.4.6", "x@multi.example": "4.4.4",
	} {
		outcome := queue.Failed
		if part == "4.4.4" {
			outcome = queue.Deferred
		}
		wantResult(t, w.one(to), outcome, 0, part)
	}
	wantResult(t, w.one("x@mix.example"), queue.Delivered, 250)
	if w.dialled("[ff02::1]:25") != 0 {
		t.Error("a multicast address was dialled")
	}
}

const bothZone = "a.example. A 192.0.2.1\na.example. AAAA 2001:db8::1\nb.example. A 192.0.2.2\nb.example. AAAA 2001:db8::2"

// A family that does not answer delays the first host a little, and the next not.
func TestBrokenFamily(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Timeouts.Family = 20 * time.Millisecond })
	w.dns.Zone(t, bothZone)
	p := newPeer(t)
	w.at("192.0.2.1:25", "hang").at("192.0.2.2:25", "hang").at("[2001:db8::1]:25", p.start()).at("[2001:db8::2]:25", p.l.Addr().String())
	w.start()
	began := time.Now()
	wantResult(t, w.one("x@a.example"), queue.Delivered, 250)
	wantResult(t, w.one("x@b.example"), queue.Delivered, 250)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v: a broken family was waited for", took)
	}
	if w.dialled("192.0.2.1:25") != 1 || w.dialled("192.0.2.2:25") != 0 {
		t.Errorf("the broken family was tried %d times for a.example, %d times for b.example", w.dialled("192.0.2.1:25"), w.dialled("192.0.2.2:25"))
	}
}

func TestFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &families{now: time.Now}
		order := func() (string, int) {
			ips := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")}
			hasty := f.order(ips)
			return strings.Trim(strings.ReplaceAll(strings.ReplaceAll(ips[0].String()+" "+ips[1].String(), "192.0.2.", "4/"), "2001:db8::", "6/"), "[]"), hasty
		}
		want := func(what, text string, hasty int) {
			t.Helper()
			if got, n := order(); got != text || n != hasty {
				t.Errorf("%s: %s, %d hasty; want %s, %d", what, got, n, text, hasty)
			}
		}
		want("nothing known", "4/1 6/1", 1)
		f.note("192.0.2.9", context.DeadlineExceeded)
		want("IPv4 broken", "6/1 4/1", 0)
		f.note("2001:db8::9", syscall.ENETUNREACH)
		want("both broken", "4/1 6/1", 0)
		f.note("192.0.2.9", syscall.ECONNREFUSED) // somebody was there
		want("IPv6 broken", "4/1 4/2", 0)
		time.Sleep(familyRest + 1)
		want("later", "4/1 6/1", 1)
		f.note("/socket", errors.New("no"))
		f.note("2001:db8::9", nil)
		want("a socket is of no family", "4/1 6/1", 1)
	})
}

func TestFamilyLimits(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Addresses = 2 })
	var zone strings.Builder
	for _, ip := range []string{"A 192.0.2.1", "A 192.0.2.2", "A 192.0.2.3", "AAAA 2001:db8::1", "AAAA 2001:db8::2", "AAAA 2001:db8::3"} {
		zone.WriteString("many.example. " + ip + "\n")
	}
	w.dns.Zone(t, zone.String())
	addrs, fail := w.mta.addresses(t.Context(), &host{name: "many.example"}, &destination{limits: &w.mta.cfg.Limits})
	six := strings.Count(strings.Join(addrs, " "), "2001:")
	if fail != nil || len(addrs) != 4 || six != 2 {
		t.Errorf("%v, %v; want two addresses of each family", addrs, fail)
	}
}

// Names from DNS that are none reach nothing that is written.
func TestHostileNames(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat(strings.Repeat("x", 60)+".", 4)
	w.dns.Zone(t, `
h1.example. MX 10 evil\013\010to=<forged>.example.
h1.example. MX 10 good.example.
h2.example. CNAME evil\013\010\027[31m.example.
h3.example. MX 10 a\.\.b.example.
h4.example. MX 10 192.0.2.1.
h5.example. MX 10 `+long+`
h6.example. MX 10 alias.example.
alias.example. CNAME e\010vil.alias.example.
e\010vil.alias.example. A 192.0.2.1
good.example. A 192.0.2.1
`)
	p := newPeer(t)
	w.at("192.0.2.1:25", p.start()).start()
	for to, want := range map[string]queue.Outcome{
		"h1": queue.Delivered, "h2": queue.Failed, "h3": queue.Deferred, "h4": queue.Deferred, "h5": queue.Deferred, "h6": queue.Delivered,
	} {
		r := w.one("x@" + to + ".example")
		wantResult(t, r, want, 0)
		if strings.ContainsAny(r.Text+r.Remote, "\r\n\x1b") || len(r.Text) > 1000 {
			t.Errorf("%s: result %q", to, r.Text)
		}
	}
	for line := range strings.Lines(w.log.String()) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, "forged") || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\r\x1b") {
			t.Errorf("log line %q", line)
		}
	}
}

var _ Resolver = (*dns.Resolver)(nil)
