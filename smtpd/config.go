package smtpd

import (
	"cmp"
	"net"
	"time"

	"tabard/internal/config"
	"tabard/internal/tlsopt"
)

// Config is what the supervisor tells smtpd: plain data, no table and no key.
type Config struct {
	Listeners      []Listener
	Hostname       string        // our own name, where a listener has no other
	MaxMessageSize int64         // bytes of one message; 0: 35 MiB
	MaxMails       int           // messages per session; 0: 100
	MaxRcpt        int           // recipients per message; 0: 1000
	MaxConnections int           // sessions at once over all listeners; 0: 1000
	MaxPerAddress  int           // sessions at once from one IPv4 address or IPv6 /64; 0: half of MaxConnections
	MaxErrors      int           // refused commands until a session is closed; 0: 20
	MaxPriority    int           // the highest MT-PRIORITY of those who log in
	FutureRelease  time.Duration // how long mail of those who log in may be held; 0: it is not offered
	Timeouts       Timeouts
}

// Listener is what smtpd knows of one `listen on` directive.
type Listener struct {
	Index                int    // place among the configuration's listeners, as lookup counts them
	Name                 string // for logs
	TLS                  config.TLSMode
	Handshake            tlsopt.Options // TLS versions and ciphers
	Verify               config.Verify  // what is asked of client certificates
	HasCertAuth          bool           // cert-auth: certificates log in
	HasPKI               bool           // lookup has certificates for this listener; without, TLS is not offered
	Auth                 config.AuthMode
	HasSenders           bool // lookup.Sender is to be asked about authenticated users
	Tag                  string
	Hostname             string // our name here; empty: Config.Hostname
	HasHostnames         bool   // our name depends on the address: lookup.Connect tells it
	MaskSource           bool   // leave the client out of Received
	ReceivedAuth         bool   // name the authenticated user in Received
	NoDSN                bool
	NormalizeBareNewline bool // store bare CR and LF as CRLF instead of refusing them
	Socket               bool // a UNIX socket for local programs
}

// Timeouts bound every wait. Zero means the default, which is RFC 5321 section
// 4.5.3.2's where that has one.
type Timeouts struct {
	Command   time.Duration // until a whole command line is there; 5 min
	Data      time.Duration // between two blocks of a message; 3 min
	Message   time.Duration // for a whole message, all blocks; 1 h
	Handshake time.Duration // for a whole TLS handshake; 30 s
	Write     time.Duration // until the client takes a reply; 2 min
	Name      time.Duration // for the client's host name; 5 s
	Lookup    time.Duration // for any other question to lookup; 60 s
	Commit    time.Duration // until the queue has stored a message; 5 min
	AuthDelay time.Duration // before the answer to a failed AUTH; 1 s
}

// FromConfig takes from a configuration what smtpd needs. hostname is the
// server's name.
func FromConfig(c *config.Config, hostname string) Config {
	out := Config{
		Hostname:       hostname,
		MaxMessageSize: c.SMTP.MaxMessageSize,
		MaxMails:       c.SMTP.MaxMails,
		MaxRcpt:        c.SMTP.MaxRcpt,
		MaxConnections: c.SMTP.MaxConnections,
		MaxErrors:      c.SMTP.MaxErrors,
		MaxPriority:    c.SMTP.MaxPriority,
		FutureRelease:  c.SMTP.FutureRelease,
	}
	for i := range c.Listeners {
		l := fromListener(&c.Listeners[i])
		l.Index = i
		out.Listeners = append(out.Listeners, l)
	}
	return out
}

func fromListener(l *config.Listener) Listener {
	name := net.JoinHostPort(l.Host, l.Port)
	if l.Socket {
		name = "socket"
	}
	return Listener{
		Name: name, TLS: l.TLS, Handshake: l.Handshake, Verify: l.Verify, HasCertAuth: l.CertAuth != "", Auth: l.Auth, Tag: l.Tag, Hostname: l.Hostname,
		HasPKI: len(l.PKINames) > 0 || len(l.PKITables) > 0, HasSenders: l.Senders != "", HasHostnames: l.Hostnames != "",
		MaskSource: l.MaskSource, ReceivedAuth: l.ReceivedAuth, NoDSN: l.NoDSN,
		NormalizeBareNewline: l.NormalizeBareNewline, Socket: l.Socket,
	}
}

// withDefaults fills in what was left zero.
func (c Config) withDefaults() Config {
	c.MaxMessageSize = cmp.Or(c.MaxMessageSize, 35<<20)
	c.MaxMails = cmp.Or(c.MaxMails, 100)
	c.MaxRcpt = cmp.Or(c.MaxRcpt, 1000)
	c.MaxConnections = cmp.Or(c.MaxConnections, 1000)
	c.MaxPerAddress = cmp.Or(c.MaxPerAddress, max(c.MaxConnections/2, 1))
	c.MaxErrors = cmp.Or(c.MaxErrors, 20)
	c.Timeouts = c.Timeouts.withDefaults()
	return c
}

func (t Timeouts) withDefaults() Timeouts {
	t.Command = cmp.Or(t.Command, 5*time.Minute)
	t.Data = cmp.Or(t.Data, 3*time.Minute)
	t.Message = cmp.Or(t.Message, time.Hour)
	t.Handshake = cmp.Or(t.Handshake, 30*time.Second)
	t.Write = cmp.Or(t.Write, 2*time.Minute)
	t.Name = cmp.Or(t.Name, 5*time.Second)
	t.Lookup = cmp.Or(t.Lookup, time.Minute)
	t.Commit = cmp.Or(t.Commit, 5*time.Minute)
	t.AuthDelay = cmp.Or(t.AuthDelay, time.Second)
	return t
}
