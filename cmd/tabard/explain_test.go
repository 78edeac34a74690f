package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/internal/dns/dnstest"
	"tabard/lookup"
	"tabard/queue"
)

const explainConf = `hostname mx.example.org
table ours    { "example.org" }
table aliases { "sales" = "alice, bob@partner.example" }
table users   { "alice" = "1000:1000:/home/alice" }
table routes  { "partner.example" = "tls://partner@mail.partner.example:587 10, smtp+tls+mx:// 20" }
table secrets { "partner" = "customer:SECRET" }

listen on 192.0.2.25

action "in"  maildir "/var/mail/%{user.username}" alias <aliases> userbase <users>
action "out" relay domain <routes> auth <secrets>

match from any for domain <ours> action "in"
match from local for any action "out"
`

const explainZone = `
mail.partner.example. 600 A 198.51.100.1
partner.example.      3600 MX 10 mx1.partner.example.
partner.example.      3600 MX 20 mx2.partner.example.
mx1.partner.example.  3600 A 198.51.100.2
mx1.partner.example.  3600 AAAA 2001:db8::2
mx2.partner.example.  3600 A 198.51.100.3
`

// docs/relay.md shows what `tabard explain` prints; the exit code says it shortly.
func TestExplain(t *testing.T) {
	srv := dnstest.Start(t, explainZone)
	dir := t.TempDir()
	conf := filepath.Join(dir, "tabard.conf")
	text := "resolver " + srv.Addr() + "\nqueue sqlite:" + filepath.Join(dir, "q.db") + "\n" + explainConf
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	explain := func(code int, args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		got := execute(append([]string{"explain", "--direct", "-c", conf}, args...), strings.NewReader(""), &out, &errs)
		if got != code {
			t.Errorf("explain %v: exit code %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
		}
		return strings.ReplaceAll(out.String(), dir, "/etc/tabard")
	}
	shown := explain(0, "carol@example.net", "sales@example.org")
	doc, err := os.ReadFile("../../docs/relay.md")
	if err != nil || !strings.Contains(string(doc), "```\n"+shown+"```\n") || !strings.Contains(string(doc), "```\n"+explainConf+"```\n") {
		t.Errorf("docs/relay.md lacks (%v):\n%s\nor its configuration", err, shown)
	}
	if strings.Contains(shown, "SECRET") {
		t.Error("a password is shown")
	}
	var e explanation
	if err := json.Unmarshal([]byte(explain(0, "--json", "<>", "x@partner.example")), &e); err != nil || len(e.Relays) != 1 || len(e.Relays[0].Hosts) != 3 {
		t.Errorf("%v: %+v", err, e)
	}
	explain(exNoUser, "a@b.example", "nobody@example.org")
	explain(exNoPerm, "--client", "203.0.113.9", "a@b.example", "x@partner.example")
	explain(exDataErr, "a@b.example", "no address")
	explain(exNoHost, "a@b.example", "x@nowhere.example")
	explain(exUsage, "not an address", "x@partner.example")
	explain(exUsage, "--listener", "nonsense", "a@b.example", "x@partner.example")
	explain(exUsage, "--client", "nonsense", "a@b.example", "x@partner.example")
	srv.Set("away.example", dnstest.ServFail)
	explain(exTempFail, "a@b.example", "x@away.example")
}

// What is not looked up for being too much is not passed over in silence.
func TestRelayPlansBounded(t *testing.T) {
	var targets []lookup.Target
	for i := range maxRelayPlans {
		targets = append(targets, lookup.Target{Relay: true, Action: "out", Address: fmt.Sprintf("x@d%d.example", i)})
	}
	if plans, more := relayPlans(append(targets, targets...)); len(plans) != maxRelayPlans || more || len(plans[0].Recipients) != 2 {
		t.Errorf("%d plans, more %v", len(plans), more)
	}
	if plans, more := relayPlans(append(targets, lookup.Target{Relay: true, Action: "out", Address: "x@last.example"})); len(plans) != maxRelayPlans || !more {
		t.Errorf("of one more: %d plans, more %v", len(plans), more)
	}
}

// A hold shows, and is a reason to wait.
func TestExplainHeld(t *testing.T) {
	e := explanation{}
	targets := []lookup.Target{{Action: "in", Address: "a@own.example", User: "a"}, {Relay: true, Action: "out", Address: "x@far.example"}}
	holds := []queue.Hold{
		{Kind: queue.HoldSender, Value: "b@y.example"}, {Kind: queue.HoldRoute, Value: "own.example"},
		{Kind: queue.HoldRoute, Value: "far.example", Reason: "they asked"}, {Kind: queue.HoldRule, Value: "in"},
	}
	e.Held = heldBy(holds, targets, "a@y.example")
	var out strings.Builder
	if err := printExplanation(&out, &e, lookup.ExplainRequest{}); err != nil || e.exitCode(false) != exTempFail ||
		!strings.Contains(out.String(), "held      route far.example paused: they asked\nheld      rule in held\n") {
		t.Errorf("%d, %v\n%s", e.exitCode(false), err, out.String())
	}
}
