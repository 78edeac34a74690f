package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"tabard/internal/eventlog"
	"tabard/internal/privsep"
	"tabard/lookup"
	"tabard/table/cache"
)

// exampleStatus is what docs/tables.md shows.
func exampleStatus() status {
	at := time.Date(2026, 3, 1, 8, 11, 2, 0, time.UTC)
	return status{
		Status: privsep.Status{Processes: []privsep.ProcessStatus{{Name: "lookup", PID: 42, State: privsep.StateRunning, Since: at}}},
		Tables: []lookup.TableInfo{
			{
				Name: "mail", Kind: "sqlite", Services: []string{"alias", "domain", "userinfo"}, Questions: 18240,
				Source: lookup.Source{State: lookup.SourceUp, Since: at, Questions: 912},
				Cache:  &cache.Stats{Entries: 655, Bytes: 200 << 10, Limit: 64 << 20, Hits: 17_328, Misses: 912, HitRate: 0.95, Watch: cache.Watch{State: cache.WatchTold, Since: at}},
			},
			{
				Name: "staff", Kind: "ldap", Services: []string{"credentials"}, Questions: 310,
				Source: lookup.Source{State: lookup.SourceDown, Since: at, Questions: 48, Errors: 7, LastError: "ldap://ldap1.example.org: connection refused", LastErrorAt: at},
				Cache: &cache.Stats{Entries: 41, Bytes: 13 << 10, Limit: 64 << 20, Hits: 262, Misses: 48, HitRate: 262. / 310, Down: true,
					Watch: cache.Watch{State: cache.WatchLost, Since: at, Error: "connection closed"}},
			},
			{Name: "offices", Kind: "file", Services: []string{"netaddr"}, Source: lookup.Source{State: lookup.SourceUnasked, Since: at}},
		},
	}
}

func TestStatusExample(t *testing.T) {
	var out strings.Builder
	if err := printTables(&out, exampleStatus()); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/tables.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "```\n"+strings.TrimPrefix(out.String(), "\n")+"```\n") {
		t.Errorf("docs/tables.md lacks:\n%s", out.String())
	}
}

func TestStatusWithoutLookup(t *testing.T) {
	st := exampleStatus()
	st.Tables, st.TableFault = nil, "lookup does not run"
	var out strings.Builder
	if err := (&globals{}).printStatus(&out, st, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "lookup   42") || !strings.Contains(got, "cannot be said: lookup does not run") {
		t.Errorf("prints\n%s", got)
	}
}

// TestStatusOfTables asks a running server with one table that answers and one
// that is down.
func TestStatusOfTables(t *testing.T) {
	s := startQuickstart(t)
	s.edit(func(text string) string { return "table away \"ldap://127.0.0.1:1/dc=example\"\n" + text })
	tables := func() map[string]lookup.TableInfo {
		var st status
		if err := json.Unmarshal([]byte(tabard(t, "-c", s.config, "--json", "status")), &st); err != nil || len(st.Processes) == 0 || st.Config == nil {
			t.Fatalf("%+v, %v", st, err)
		}
		byName := make(map[string]lookup.TableInfo)
		for _, i := range st.Tables {
			byName[i.Name] = i
		}
		return byName
	}
	for range 2 {
		tabard(t, "-c", s.config, "lookup", "mail", "domain", "localhost")
	}
	tabardFails(t, exTempFail, "-c", s.config, "lookup", "away", "alias", "info")
	eventually(t, "the watch is in force, and the other table counts as down", func() bool {
		st := tables()
		return st["mail"].Cache.Watch.State == cache.WatchTold && st["away"].Source.State == lookup.SourceDown
	})
	mail := tables()["mail"]
	if mail.Source.State != lookup.SourceUp || mail.Cache.Hits == 0 || mail.Questions < 2 || len(mail.Services) == 0 {
		t.Errorf("mail: %+v, cache %+v", mail, mail.Cache)
	}
	text := tabard(t, "-c", s.config, "status")
	for _, want := range []string{`(?m)^mail +sqlite +alias, .* up +told +\d+ +0 `, `(?m)^away +ldap +- +down `, `(?m)^table away: down since .*127\.0\.0\.1:1`} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("status lacks %s:\n%s", want, text)
		}
	}
	// explain asks the same server, of lookup and of mta.
	told := tabard(t, "-c", s.config, "explain", "--auth", s.user, "--tls", s.user, "x@[192.0.2.1]")
	if !strings.Contains(told, "<mail> relayhost [192.0.2.1]: no row") || !strings.Contains(told, "host      smtp+tls://192.0.2.1:25 (MX 0)") {
		t.Errorf("explain prints\n%s", told)
	}
}

func TestStatusOfEvents(t *testing.T) {
	since := time.Date(2026, 3, 1, 8, 11, 2, 0, time.UTC)
	st := exampleStatus()
	st.EventLog = &eventlog.Status{
		Table: "log", Fault: "the disk is full", Since: &since, Processes: []eventlog.ProcessStatus{{Process: "queue", Written: 5, Waiting: 3, Lost: 1}},
	}
	var out strings.Builder
	if err := (&globals{}).printStatus(&out, st, time.Now()); err != nil {
		t.Fatal(err)
	}
	want := "\nevent log in table log; queue: 5 written, 3 waiting, 1 lost\nevent log: not written since 2026-03-01T08:11:02Z: the disk is full\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("prints\n%swant\n%s", out.String(), want)
	}
}
