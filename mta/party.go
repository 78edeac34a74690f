package mta

import (
	"context"
	"fmt"

	"tabard/internal/tlsopt"
	"tabard/lookup"
	"tabard/table"
)

// level is how a channel is secured, or is to be. A later one is more. The names
// are those of tls-policy rows.
type level uint8

const (
	levelNone        level = iota + 1 // in clear
	levelMay                          // TLS if it comes about
	levelEncrypt                      // TLS, whoever the server is
	levelFingerprint                  // TLS, with a certificate or key that was named beforehand
	levelVerify                       // TLS, with a verified certificate for the host
	levelSecure                       // TLS, with a verified certificate for the destination
)

// String returns the level's name.
func (l level) String() string {
	return [...]string{"", "none", "may", "encrypt", "fingerprint", "verify", "secure"}[l]
}

// A party has a say in how the channel to a host must be secured: the scheme of
// the URL, the action, a table, the message. None can take back what another
// wants. A party that has to ask somebody (DNS, a policy host) does so within ctx.
type party interface {
	// wish returns what the party wants of the channel to a host; the zero wish
	// is nothing. An error is a veto: the host is not used.
	wish(ctx context.Context, h *host) (wish, error)
}

// wish is what one party wants.
type wish struct {
	level     level          // at least
	by        string         // who it is, for people
	avoid     bool           // do not try TLS, as far as nobody else wants it
	names     []string       // which the certificate may be for, instead of the host's
	pins      [][32]byte     // SHA-256 of the certificates or keys that are right
	chain     bool           // a pin does not stand in for a verified chain
	tagged    bool           // the server must offer REQUIRETLS; without, the mail fails
	handshake tlsopt.Options // within these bounds
}

// demand is what all parties together want.
type demand struct {
	level     level
	by        string     // who wanted the level
	names     []string   // which the certificate is verified for
	chain     bool       // it must be verified
	pins      [][32]byte // it, or its key, must be one of these
	tagged    bool
	handshake tlsopt.Options
}

// veto is why a host cannot be used. It is temporary unless it is final: the
// administrator may change what is in the way.
type veto struct {
	text  string
	final bool
}

// Error says what is in the way.
func (v *veto) Error() string { return v.text }

func forbid(format string, args ...any) error { return &veto{text: fmt.Sprintf(format, args...)} }

// decide hears all parties about a host.
func decide(ctx context.Context, h *host, parties []party) (policy, error) {
	p := policy{scheme: h.scheme}
	var avoid string
	var names []string
	strict := false
	for _, one := range parties {
		w, err := one.wish(ctx, h)
		if err != nil {
			return policy{}, err
		}
		if w.level > p.level {
			p.level, p.by = w.level, w.by
		}
		if w.avoid {
			avoid = w.by
		}
		if len(w.names) > 0 {
			names = w.names
		}
		if len(w.pins) > 0 {
			p.pins = w.pins
		}
		strict, p.tagged = strict || w.chain, p.tagged || w.tagged
		if p.handshake, err = p.handshake.And(w.handshake); err != nil {
			return policy{}, forbid("%s: %v", w.by, err)
		}
	}
	if p.level >= levelEncrypt && !encrypts(p.scheme) {
		return policy{}, &veto{final: p.tagged, text: fmt.Sprintf(
			"TLS required for relaying, but %s:// never encrypts (%s wants %s)", p.scheme, p.by, p.level)}
	}
	p.steer(avoid)
	p.identity(h, names, strict)
	return p, nil
}

// steer applies the level to a scheme that leaves it open.
func (p *policy) steer(avoid string) {
	switch {
	case p.scheme != lookup.SchemeSMTPTLS:
	case p.level >= levelEncrypt:
		p.scheme = lookup.SchemeTLS
	case avoid != "":
		p.scheme, p.level, p.by = lookup.SchemeSMTP, levelNone, avoid
	}
}

// identity settles who the server must prove to be. Whoever lists the right
// certificates has looked at them: that stands in for a verified chain, except
// where somebody insists on one.
func (p *policy) identity(h *host, names []string, strict bool) {
	p.chain = p.level >= levelVerify
	if len(p.pins) > 0 && !strict {
		p.chain = false
		p.level = levelFingerprint
	}
	switch {
	case len(names) == 0 && p.level == levelSecure && h.mx:
		names = []string{"nexthop", "dot-nexthop"}
	case len(names) == 0:
		names = []string{"hostname"}
	}
	for _, name := range names {
		switch name { // Postfix' words
		case "hostname":
			name = h.name
		case "nexthop":
			name = h.nexthop
		case "dot-nexthop":
			name = "." + h.nexthop
		}
		p.names = append(p.names, name)
	}
}

// parties lists who has a say about a host for the message of a destination.
func (d *destination) parties(h *host) []party {
	return []party{
		byScheme{d.route.NoVerify},
		byAction{&d.route},
		byTable{policy: routeURLs(&d.route)[h.url].Policy, relaxed: d.relaxed},
		byMessage{d.tagged},
	}
}

// byScheme is the promise of a relay URL's scheme (DESIGN 6).
type byScheme struct{ noVerify bool }

func (b byScheme) wish(_ context.Context, h *host) (wish, error) {
	w := wish{by: string(h.scheme) + "://"}
	switch h.scheme {
	case lookup.SchemeTLS, lookup.SchemeSMTPS, lookup.SchemeSSL:
		w.level = levelVerify
		if b.noVerify {
			w.level = levelEncrypt
		}
	case lookup.SchemeSMTPTLS:
		w.level = levelMay
	case lookup.SchemeSMTP, lookup.SchemeLMTP:
		w.level = levelNone
	default:
		return w, forbid("unknown relay scheme %q", h.scheme)
	}
	return w, nil
}

// byAction is the action's `tls [no-verify]`, `protocols` and `ciphers`.
type byAction struct{ route *lookup.Route }

func (b byAction) wish(context.Context, *host) (wish, error) {
	w := wish{by: "action tls", handshake: b.route.Handshake}
	switch {
	case b.route.TLS && b.route.NoVerify:
		w.level, w.by = levelEncrypt, "action tls no-verify"
	case b.route.TLS:
		w.level = levelVerify
	}
	return w, nil
}

// byTable is the row of a tls-policy table. A message whose header says
// `TLS-Required: No` relaxes it to "if it comes about" (RFC 8689 section 4.2).
type byTable struct {
	policy  *lookup.TLSPolicy
	relaxed bool
}

func (b byTable) wish(context.Context, *host) (wish, error) {
	p := b.policy
	if p == nil {
		return wish{}, nil
	}
	w := wish{by: p.Row, avoid: p.Level == table.TLSNone, handshake: p.Handshake}
	if b.relaxed {
		return wish{by: p.Row, avoid: w.avoid, level: levelMay}, nil
	}
	switch p.Level {
	case table.TLSNone, table.TLSMay:
		w.level = levelMay
	case table.TLSEncrypt:
		w.level = levelEncrypt
	case table.TLSFingerprint:
		w.level, w.pins = levelFingerprint, p.Fingerprints
	case table.TLSVerify:
		w.level, w.names = levelVerify, p.Names
	case table.TLSSecure:
		w.level, w.names = levelSecure, p.Names
	default:
		// To do less than what the row asks for would be to break it in silence.
		return w, forbid("%s: level %s is not supported yet", p.Row, p.Level)
	}
	return w, nil
}

// byMessage is REQUIRETLS (RFC 8689 section 4.2.1). A server that takes mail from
// a socket of this machine is no hop over a network.
type byMessage struct{ tagged bool }

func (b byMessage) wish(_ context.Context, h *host) (wish, error) {
	if !b.tagged || h.socket() {
		return wish{}, nil
	}
	w := wish{by: "REQUIRETLS", level: levelVerify, chain: true, tagged: true}
	if h.mx && !h.proven {
		// Whoever forges the MX record names a host of his own: the certificate
		// must be for the destination itself, or for what a tls-policy row lists.
		w.level = levelSecure
	}
	return w, nil
}
