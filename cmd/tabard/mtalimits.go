package main

import (
	"strings"
	"time"

	"tabard/internal/config"
	"tabard/mta"
)

// mtaLimits makes mta's limits of `mta limit`: those for all, and those for
// single domains and relay hosts, which have the rest from the former.
func mtaLimits(list []config.MTALimit) (all mta.Limits, byDomain map[string]mta.Limits) {
	for _, l := range list {
		if l.Domain == "" {
			setLimit(&all, l.Key, l.Value)
		}
	}
	byDomain = make(map[string]mta.Limits)
	for _, l := range list {
		if l.Domain == "" {
			continue
		}
		name := strings.ToLower(l.Domain)
		own, ok := byDomain[name]
		if !ok {
			own = all
		}
		setLimit(&own, l.Key, l.Value)
		byDomain[name] = own
	}
	return all, byDomain
}

// noLimit is more than any number that can be.
const noLimit = 1 << 20

// setLimit applies one key. A number of 0 is no limit; the keys that mta does not
// know were refused before.
func setLimit(l *mta.Limits, key string, n int) {
	counts := map[string]*int{
		"max-conn-per-route": &l.PerRoute, "max-conn-per-source": &l.PerSource,
		"max-conn-per-connector": &l.PerConnector, "max-conn-per-domain": &l.PerDomain,
		"task-lowat": &l.Resume, "task-release": &l.Release,
	}
	defaulted := map[string]*int{ // 0 would be the default
		"max-conn-per-host": &l.PerHost, "max-conn-per-relay": &l.PerDestination, "session-mail-max": &l.Messages,
		"max-failures-per-session": &l.Failures, "task-hiwat": &l.Waiting,
	}
	delays := map[string]*time.Duration{
		"conn-delay-host": &l.DelayHost, "conn-delay-route": &l.DelayRoute, "conn-delay-source": &l.DelaySource,
		"conn-delay-connector": &l.DelayConnector, "conn-delay-relay": &l.DelayRelay, "conn-delay-domain": &l.DelayDomain,
		"reconn-delay-route": &l.Reconnect, "session-transaction-delay": &l.Transaction, "session-keepalive": &l.KeepAlive,
	}
	switch {
	case key == "inet4":
		l.Family = mta.IPv4
	case key == "inet6":
		l.Family = mta.IPv6
	case counts[key] != nil:
		*counts[key] = n
	case defaulted[key] != nil && n == 0:
		*defaulted[key] = noLimit
	case defaulted[key] != nil:
		*defaulted[key] = n
	case key == "session-keepalive" && n == 0:
		l.KeepAlive = time.Nanosecond
	case delays[key] != nil:
		*delays[key] = time.Duration(n) * time.Second
	}
}
