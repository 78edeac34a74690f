package main

import (
	"log/slog"
	"slices"
	"testing"

	"tabard/internal/config"
	"tabard/internal/privsep"
	"tabard/internal/sandbox"
)

// What a process may do follows from the configuration.
func TestProfilesFollowTheConfiguration(t *testing.T) {
	parse := func(text string) *config.Config {
		t.Helper()
		cfg, err := config.Parse("x", []byte(text+"\nmatch for any reject"), config.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	quiet := slog.New(slog.DiscardHandler)
	p := newMTAReach(parse("table t postgres://h:7000/d\ntable u ldap://h/dc=x"), quiet).profile()
	if p.Connects != sandbox.Internet || !slices.Equal(p.ClosedPorts, []uint16{389, 7000}) {
		t.Errorf("mta: %+v", p)
	}
	if p := newMTAReach(parse(`action a relay host "lmtp:///run/x.sock"`), quiet).profile(); p.Connects != sandbox.Anywhere {
		t.Errorf("mta with a socket as relay: %+v", p)
	}
	// A socket is where mta can see it.
	for _, tt := range []struct {
		name, configured string
		sockets          bool
		want             string
	}{
		{procMTA, "", false, privsep.EmptyRoot}, {procMTA, "", true, ""}, {procMTA, "/srv", true, "/srv"},
		{procSMTPD, "", true, privsep.EmptyRoot}, {procLookup, "", false, ""},
	} {
		if got := chroot(tt.name, tt.configured, tt.sockets); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	if p := tablesProfile(parse("table t proc:/bin/p\ntable u { a }").Tables); p.Programs == "" || p.Connects != sandbox.Anywhere {
		t.Errorf("lookup with a program: %+v", p)
	}
	if p := tablesProfile(parse("table t sqlite:/a/b.db").Tables); p.Programs != "" || !slices.Contains(p.Writes, "/a") {
		t.Errorf("lookup without: %+v", p)
	}
	for text, want := range map[string]deliverMeans{
		"action a maildir":           {},
		"action a mbox":              {},
		`action a mda "x"`:           {Programs: true},
		"action a lmtp /run/x":       {Connects: true},
		"action a lmtp localhost:24": {Connects: true},
	} {
		got := newDeliverMeans(parse(text))
		if got != want {
			t.Errorf("%s: %+v", text, got)
		}
		if p := got.profile(); (p.Open != "") != want.Programs || (p.Connects == sandbox.Anywhere) != want.Connects || !p.AllFiles {
			t.Errorf("%s: %+v", text, p)
		}
	}
	for text, want := range map[string]sandbox.Mode{"": sandbox.BestEffort, "sandbox off": sandbox.Off, "sandbox require": sandbox.Require} {
		if got := sandboxMode(parse(text)); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
