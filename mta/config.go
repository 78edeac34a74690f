package mta

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"tabard/internal/dns"
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
	SMTPPort  string // port of MXs; default "25"
	SMTPSPort string // second port of ssl:// URLs; default "465"
	Limits    Limits
	Timeouts  Timeouts
	// StopTimeout is how long running transactions may take to finish once Run
	// was told to stop; default 30 s.
	StopTimeout time.Duration
}

// Limits are upper bounds.
type Limits struct {
	InFlight       int // jobs taken from the queue and not done; default 1000
	PerDestination int // transactions at once of one destination; default 20
	Waiting        int // jobs waiting for a place at one destination; default a quarter of InFlight
	PerHost        int // connections at once to one address; default 100
	Messages       int // messages sent over one connection; default 100
	Recipients     int // recipients in one transaction; default 100
	Hosts          int // hosts tried for one message; default 10
	Addresses      int // addresses of one family tried of one host; default 4
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
	Block    time.Duration // one write of the body; default 3 min
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
	l := &c.Limits
	l.InFlight = or(l.InFlight, 1000)
	l.PerDestination = or(l.PerDestination, 20)
	l.Waiting = or(l.Waiting, max(1, l.InFlight/4))
	l.PerHost = or(l.PerHost, 100)
	l.Messages = or(l.Messages, 100)
	l.Recipients = or(l.Recipients, 100)
	l.Hosts = or(l.Hosts, 10)
	l.Addresses = or(l.Addresses, 4)
	c.Timeouts = c.Timeouts.withDefaults()
	return c
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
