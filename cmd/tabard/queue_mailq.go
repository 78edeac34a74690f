package main

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/queue"
)

// mailqLine is an envelope as OpenSMTPD's `smtpctl show queue` prints one: fields
// in its order, between bars.
func mailqLine(l *queue.Listed, now time.Time) string {
	e := &l.Envelope
	agent := "mda"
	switch {
	case l.Reporting:
		agent = "bounce"
	case e.Relay:
		agent = "mta"
	}
	var flags []string
	if l.Sender == "" {
		flags = append(flags, "bounce")
	}
	if l.Login != "" {
		flags = append(flags, "auth")
	}
	state, since := "pending", max(0, e.Next.Sub(now))
	switch {
	case l.InFlight:
		state, since = "inflight", max(0, now.Sub(e.Next))
	case e.Held:
		flags = append(flags, "suspend")
	}
	last := l.LastTry
	if last.IsZero() {
		last = e.Created
	}
	why := e.LastError
	if e.HeldFor != "" {
		why = e.HeldFor
	}
	unix := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	fields := []string{
		e.ID.String(), family(l.Remote), agent, strings.Join(flags, ","), l.Sender, e.Recipient, e.Address,
		unix(e.Created), unix(e.Expires), unix(last), strconv.Itoa(e.Attempts), state, strconv.FormatInt(int64(since/time.Second), 10),
		address.OneLine(why, 500),
	}
	for i, f := range fields {
		fields[i] = strings.ReplaceAll(f, "|", "?") // a field has no bar
	}
	return strings.Join(fields, "|")
}

// family is that of the peer that brought a message.
func family(remote string) string {
	ip, err := netip.ParseAddr(remote)
	switch {
	case err != nil:
		return "local"
	case ip.Unmap().Is4():
		return "inet4"
	}
	return "inet6"
}
