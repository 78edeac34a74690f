package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tabard/internal/config"
	"tabard/mta"
)

// Every key of the configuration reaches mta, for all or for one domain.
func TestMTALimits(t *testing.T) {
	list := []config.MTALimit{{Domain: "D.example", Key: "session-mail-max", Value: 3}, {Domain: "d.example", Key: "inet6"}, {Key: "inet4"}}
	for i, key := range []string{
		"max-conn-per-host", "max-conn-per-route", "max-conn-per-source", "max-conn-per-connector", "max-conn-per-relay",
		"max-conn-per-domain", "conn-delay-host", "conn-delay-route", "conn-delay-source", "conn-delay-connector",
		"conn-delay-relay", "conn-delay-domain", "reconn-delay-route", "session-mail-max", "session-transaction-delay",
		"session-keepalive", "max-failures-per-session", "task-hiwat", "task-lowat", "task-release",
	} {
		list = append(list, config.MTALimit{Key: key, Value: i + 1})
	}
	all, own := mtaLimits(list)
	s := time.Second
	want := mta.Limits{
		PerHost: 1, PerRoute: 2, PerSource: 3, PerConnector: 4, PerDestination: 5, PerDomain: 6,
		DelayHost: 7 * s, DelayRoute: 8 * s, DelaySource: 9 * s, DelayConnector: 10 * s, DelayRelay: 11 * s, DelayDomain: 12 * s,
		Reconnect: 13 * s, Messages: 14, Transaction: 15 * s, KeepAlive: 16 * s, Failures: 17, Waiting: 18, Resume: 19, Release: 20, Family: mta.IPv4,
	}
	if d := cmp.Diff(want, all); d != "" {
		t.Error(d)
	}
	want.Messages, want.Family = 3, mta.IPv6
	if d := cmp.Diff(map[string]mta.Limits{"d.example": want}, own); d != "" {
		t.Error(d)
	}
	none, _ := mtaLimits([]config.MTALimit{{Key: "max-conn-per-host"}, {Key: "session-keepalive"}, {Key: "max-conn-per-route"}})
	if none.PerHost != noLimit || none.KeepAlive != 1 || none.PerRoute != 0 {
		t.Errorf("0 is %+v", none)
	}
}
