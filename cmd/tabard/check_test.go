package main

import (
	"os"
	"strings"
	"testing"

	"tabard/internal/config"
)

// Users that do not exist are a fault for root, and a warning for others.
func TestCheckUsers(t *testing.T) {
	parse := func(text string) *config.Config {
		cfg, err := config.Parse("test.conf", []byte(text+"match from any for any reject\n"), config.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	fine := "process smtpd user root\nprocess mta user root\nprocess lookup user root\nprocess queue user root\nprocess deliver user root\n"
	if got := userProblems(parse(fine), "test.conf", true); len(got) != 0 {
		t.Errorf("all exist: %v", got)
	}
	text := strings.NewReplacer("mta user root", "mta user no-such-user", "queue user root", "queue user root group no-such-group").Replace(fine)
	got := userProblems(parse(text), "test.conf", true)
	if len(got) != 2 || got[0].Warning || !strings.HasPrefix(got[0].String(), "test.conf:2:1: process mta: ") || !strings.Contains(got[0].Cause, "useradd --system --no-create-home --shell /usr/sbin/nologin no-such-user") ||
		!strings.HasPrefix(got[1].String(), "test.conf:4:1: process queue: ") || !strings.Contains(got[1].Cause, "no-such-group") {
		t.Errorf("for root: %v", got)
	}
	got = userProblems(parse(text), "test.conf", false)
	if len(got) != 1 || !got[0].Warning || !strings.HasPrefix(got[0].String(), "test.conf:2:1: started by root, the server would not start: process mta: ") || !strings.HasSuffix(got[0].Cause, "(and 1 more users are missing)") {
		t.Errorf("for others: %v", got)
	}
	// The default users have no line of their own.
	if got := userProblems(parse(strings.Replace(fine, "mta user root", "mta user no-such-user", 1)+"metrics 127.0.0.1:9\nprocess metrics user no-such-user\n"), "test.conf", true); len(got) != 2 {
		t.Errorf("with metrics: %v", got)
	}
}

// What a row of tls-policy asks for and does not get is told when it is stored, and
// by check.
func TestUnsupportedPolicies(t *testing.T) {
	d := newDKIMTool(t)
	d.edit("relay dkim", "relay tls-policy <mail> dkim")
	_, notes, err := d.run("tls-policy", "set", "a.example", "dane", "protocols=>=TLSv1.2")
	if err != nil || notes != "warning: level dane is not supported yet: mail to a.example waits\n" {
		t.Errorf("set: %v, %q", err, notes)
	}
	if _, notes, err := d.run("tls-policy", "set", "b.example", "verify"); err != nil || notes != "" {
		t.Errorf("set: %v, %q", err, notes)
	}
	want := "warning: " + d.conf + `:1:1: table mail: tlspolicy: "a.example": level dane is not supported yet: the mail waits` + "\nconfiguration OK\n"
	if out := d.must("check"); out != want {
		t.Errorf("check: %s", out)
	}
}

// A row is shown with what is empty in it.
func TestColumns(t *testing.T) {
	for want, row := range map[string][]string{`"", "", ""`: {"", "", ""}, `8, "", /home`: {"8", "", "/home"}, "": {}} {
		if got := columns(row); got != want {
			t.Errorf("%q: %s", row, got)
		}
	}
}

// edit changes the configuration.
func (d *dkimTool) edit(old, text string) {
	d.t.Helper()
	conf, err := os.ReadFile(d.conf)
	if err != nil || !strings.Contains(string(conf), old) {
		d.t.Fatalf("no %q in the configuration: %v", old, err)
	}
	if err := os.WriteFile(d.conf, []byte(strings.Replace(string(conf), old, text, 1)), 0o600); err != nil {
		d.t.Fatal(err)
	}
}
