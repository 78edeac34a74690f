package mta

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tabard/internal/dns"
	"tabard/internal/eventlog"
	"tabard/lookup"
)

// Resolver is what mta asks of DNS; *dns.Resolver is one.
type Resolver interface {
	// MX returns a domain's mail exchangers, best first.
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	// Addrs returns a host's addresses in the order to try them.
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
}

// DialFunc opens a connection ("tcp" or "unix") to address, from the IP address
// source unless that is empty. It must return when ctx ends.
type DialFunc func(ctx context.Context, network, source, address string) (net.Conn, error)

// Config is what mta knows from its start. Zero fields of Limits and Timeouts
// take the defaults given there.
type Config struct {
	Hostname  string       // for EHLO when the route names none; also for finding ourselves among MXs
	Addresses []netip.Addr // our own: mail for a domain whose MX has one of them would loop
	Resolver  Resolver
	Dial      DialFunc // nil: a net.Dialer
	Logger    *slog.Logger
	Events    eventlog.Recorder // the event log; nil: none
	SMTPPort  string            // port of MXs; default "25"
	SMTPSPort string            // second port of ssl:// URLs; default "465"
	Limits    Limits
	ForDomain map[string]Limits // instead, for mail to a domain or over a relay host
	Timeouts  Timeouts
	// StopTimeout is how long running transactions may take to finish once Run
	// was told to stop; default 30 s.
	StopTimeout time.Duration
}

// Limits are upper bounds. Those of connections are under what they are named
// after; 0 is no limit where no default is given.
type Limits struct {
	InFlight   int // jobs taken from the queue and not done; default 1000
	Recipients int // recipients in one transaction; default 100
	Hosts      int // hosts tried for one message; default 10
	Addresses  int // addresses of one family tried of one host; default 4

	// The following may differ between destinations (Config.ForDomain).

	Waiting int // jobs waiting for a place at one set of servers; default a quarter of InFlight
	Resume  int // once so many waited, none is taken until no more than these do; default: one less
	Release int // how many are then taken until the line is down to Resume again; 0: up to Waiting

	PerDestination int // messages on their way at once to one set of servers; default 20
	PerHost        int // connections at once to one address; default 100
	PerRoute       int // from one source address to one address
	PerSource      int // from one source address
	PerConnector   int // from one source address to one destination
	PerDomain      int // for one destination domain

	// How long after the beginning of one connection the next may begin.
	DelayHost, DelayRoute, DelaySource, DelayConnector, DelayRelay, DelayDomain time.Duration

	Reconnect   time.Duration // the same, after the end of one from the same source to the same address
	Messages    int           // messages sent over one connection; default 100
	Failures    int           // recipients refused over one connection before it is ended; default 25
	Transaction time.Duration // between two messages over one connection
	KeepAlive   time.Duration // how long an unused connection is kept; default Timeouts.Idle
	Family      Family        // of the addresses that are used
}

// Family restricts addresses to those of IPv4 or IPv6.
type Family uint8

// The restrictions.
const (
	AnyFamily Family = iota
	IPv4
	IPv6
)

// only returns the addresses that are of the family. Sockets are of every one.
func (f Family) only(addrs []string) []string {
	if f == AnyFamily {
		return addrs
	}
	return slices.DeleteFunc(addrs, func(addr string) bool {
		ip, err := netip.ParseAddr(addr)
		return err == nil && ip.Unmap().Is4() != (f == IPv4)
	})
}

// most is how many messages of one destination, to so many hosts, can be on
// their way at once by the limits on connections.
func (l *Limits) most(hosts int) int {
	n := l.PerDestination
	for _, limit := range []int{l.PerConnector, l.PerDomain, l.PerSource, l.PerHost * hosts, l.PerRoute * hosts} {
		if limit > 0 {
			n = min(n, limit)
		}
	}
	return n
}

// lane is what the limits allow a lane of so many hosts.
func (l *Limits) lane(hosts int) laneSize {
	return laneSize{most: l.most(hosts), waiting: l.Waiting, resume: l.Resume, release: l.Release}
}

// limits returns the limits of a destination, and whom they are set for: its
// domain, or the first host of its route; empty for those of all.
func (m *MTA) limits(domain string, route *lookup.Route) (*Limits, string) {
	names := []string{domain}
	if len(route.Hosts) > 0 {
		names = append(names, route.Hosts[0].Host)
	}
	for _, name := range names {
		name = strings.ToLower(name)
		if l, ok := m.cfg.ForDomain[name]; ok {
			return &l, name
		}
	}
	return &m.cfg.Limits, ""
}

// Timeouts bound every wait for a peer. The defaults of the dialogue are those
// of RFC 5321 section 4.5.3.2.
type Timeouts struct {
	Connect  time.Duration // default 30 s
	Family   time.Duration // the same, for the first address of a host that has others of the other family; default 4 s
	Greeting time.Duration // default 5 min
	Command  time.Duration // EHLO, STARTTLS, AUTH, MAIL, RCPT, RSET; default 5 min
	TLS      time.Duration // handshake and verification; default 1 min
	Data     time.Duration // reply to DATA; default 2 min
	Block    time.Duration // one write of the body, and what all take beyond a millisecond for each byte; default 3 min
	End      time.Duration // reply to the final dot; default 10 min
	Quit     time.Duration // default 10 s
	Idle     time.Duration // how long an unused connection is kept; default 10 s
	Lookup   time.Duration // one question to lookup or DNS; default 1 min
}

func (c Config) withDefaults() Config {
	c.SMTPPort = or(c.SMTPPort, "25")
	c.SMTPSPort = or(c.SMTPSPort, "465")
	c.StopTimeout = or(c.StopTimeout, 30*time.Second)
	if c.Dial == nil {
		c.Dial = dial
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Timeouts = c.Timeouts.withDefaults()
	c.Limits = c.Limits.withDefaults(c.Timeouts.Idle)
	own := make(map[string]Limits, len(c.ForDomain))
	for name, l := range c.ForDomain {
		own[name] = l.withDefaults(c.Timeouts.Idle)
	}
	c.ForDomain = own
	return c
}

func (l Limits) withDefaults(idle time.Duration) Limits {
	l.InFlight = or(l.InFlight, 1000)
	l.Waiting = or(l.Waiting, max(1, l.InFlight/4))
	l.Resume = or(l.Resume, l.Waiting-1)
	l.Recipients = or(l.Recipients, 100)
	l.Hosts = or(l.Hosts, 10)
	l.Addresses = or(l.Addresses, 4)
	l.PerDestination = or(l.PerDestination, 20)
	l.PerHost = or(l.PerHost, 100)
	l.Messages = or(l.Messages, 100)
	l.Failures = or(l.Failures, 25)
	l.KeepAlive = or(l.KeepAlive, idle)
	return l
}

func (t Timeouts) withDefaults() Timeouts {
	t.Connect = or(t.Connect, 30*time.Second)
	t.Family = min(t.Connect, or(t.Family, 4*time.Second))
	t.Greeting = or(t.Greeting, 5*time.Minute)
	t.Command = or(t.Command, 5*time.Minute)
	t.TLS = or(t.TLS, time.Minute)
	t.Data = or(t.Data, 2*time.Minute)
	t.Block = or(t.Block, 3*time.Minute)
	t.End = or(t.End, 10*time.Minute)
	t.Quit = or(t.Quit, 10*time.Second)
	t.Idle = or(t.Idle, 10*time.Second)
	t.Lookup = or(t.Lookup, time.Minute)
	return t
}

// or returns v unless it is not set.
func or[T int | time.Duration | string](v, otherwise T) T {
	var unset T
	if v <= unset {
		return otherwise
	}
	return v
}

// dial is the DialFunc of the operating system.
func dial(ctx context.Context, network, source, address string) (net.Conn, error) {
	var d net.Dialer
	if source != "" && network == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	return d.DialContext(ctx, network, address)
}
