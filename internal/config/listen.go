package config

import (
	"net/netip"
	"strconv"
	"strings"

	"tabard/internal/tlsopt"
)

// Limits of OpenSMTPD on a listener.
const (
	maxListenerPKI = 32
	maxTag         = 31 // bytes
)

// listener is a Listener while it is read; bareNewline is nil when not given.
type listener struct {
	Listener
	bareNewline *bool
}

// listen reads `listen on socket` or `listen on ADDRESS` with their options.
func (p *parser) listen(pos Pos) *Error {
	if err := p.keyword("on"); err != nil {
		return err
	}
	l := &listener{Listener: Listener{Pos: pos}}
	if p.accept("socket") {
		return p.listenSocket(l)
	}
	at := p.tok.pos
	if err := p.name(&l.Host, "address, host name or interface to listen on, or socket"); err != nil {
		return err
	}
	if inner, ok := strings.CutPrefix(l.Host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !strings.HasSuffix(inner, "]") {
			return errorAt(at, "%q is not an IP address in brackets", l.Host)
		}
		l.Host = addr.String()
	}
	if l.Host == "*" {
		return errorAt(at, "%q; expected an address, a host name or an interface (0.0.0.0 and :: mean every address)", l.Host)
	}
	if err := parseOptions(p, l, listenOptions()); err != nil {
		return err
	}
	if err := checkListener(l); err != nil {
		return err
	}
	p.addListener(l)
	return nil
}

func (p *parser) listenSocket(l *listener) *Error {
	for _, other := range p.cfg.Listeners {
		if other.Socket {
			return errorAt(l.Pos, "listen on socket was already given at %s", other.Pos)
		}
	}
	l.Socket = true
	if err := parseOptions(p, l, socketOptions()); err != nil {
		return err
	}
	p.addListener(l)
	return nil
}

func (p *parser) addListener(l *listener) {
	p.cfg.Listeners = append(p.cfg.Listeners, l.Listener)
	p.bareNewline = append(p.bareNewline, l.bareNewline)
}

// socketOptions are those of `listen on socket`.
func socketOptions() []option[listener] {
	return []option[listener]{
		{word: "filter", parse: func(p *parser, l *listener) *Error { return p.filterArg(&l.Filters) }},
		flag("mask-src", func(l *listener) *bool { return &l.MaskSource }),
		flag("no-dsn", func(l *listener) *bool { return &l.NoDSN }),
		{word: "tag", parse: (*parser).tag},
	}
}

// listenOptions are those of every other listener.
func listenOptions() []option[listener] {
	return append(socketOptions(), []option[listener]{
		{word: "auth", parse: func(p *parser, l *listener) *Error { return p.listenAuth(l, AuthRequire) }, group: "auth"},
		{word: "auth-optional", parse: func(p *parser, l *listener) *Error { return p.listenAuth(l, AuthOptional) }, group: "auth"},
		{word: "bare-newline", parse: (*parser).listenBareNewline, group: "bare-newline"},
		{word: "ca", parse: func(p *parser, l *listener) *Error { return p.caArg(&l.CAName, &l.CATable) }},
		{word: "cert-auth", parse: func(p *parser, l *listener) *Error { return p.tableArg(&l.CertAuth, "cert-auth", mapOrDynamic) }},
		ciphersOption(func(l *listener) *tlsopt.Options { return &l.Handshake }),
		{word: "hostname", parse: func(p *parser, l *listener) *Error { return p.hostName(&l.Hostname) }},
		tableOption("hostnames", mapOrDynamic, func(l *listener) *TableRef { return &l.Hostnames }),
		{word: "inet4", parse: family(4), group: "address family"},
		{word: "inet6", parse: family(6), group: "address family"},
		{word: "pki", parse: (*parser).listenPKI, many: true},
		{word: "port", parse: (*parser).listenPort},
		protocolsOption(func(l *listener) *tlsopt.Options { return &l.Handshake }),
		flag("proxy-v2", func(l *listener) *bool { return &l.ProxyV2 }),
		flag("received-auth", func(l *listener) *bool { return &l.ReceivedAuth }),
		{word: "senders", parse: (*parser).senders},
		{word: "smtp", parse: (*parser).listenSMTP, group: "bare-newline"},
		{word: "smtps", parse: tlsMode(TLSImplicit), group: "TLS mode"},
		{word: "tls", parse: tlsMode(TLSStart), group: "TLS mode"},
		{word: "tls-require", parse: tlsMode(TLSRequire), group: "TLS mode"},
		{word: "verify", parse: (*parser).verify},
	}...)
}

func family(n int) func(*parser, *listener) *Error {
	return func(_ *parser, l *listener) *Error {
		l.Family = n
		return nil
	}
}

func tlsMode(mode TLSMode) func(*parser, *listener) *Error {
	return func(_ *parser, l *listener) *Error {
		l.TLS = mode
		return nil
	}
}

// verify reads what follows `verify`, which stands behind the TLS mode by custom.
func (p *parser) verify(l *listener) *Error {
	l.Verify = VerifyRequire
	if p.accept("optional") {
		l.Verify = VerifyOptional
	}
	return nil
}

// listenPort reads a number or the name of a service.
func (p *parser) listenPort(l *listener) *Error {
	if p.tok.kind == tokNumber {
		n, err := p.count(1, 65535)
		l.Port = strconv.Itoa(n)
		return err
	}
	// These two services are called like keywords.
	for _, word := range []string{"smtp", "smtps"} {
		if p.accept(word) {
			l.Port = word
			return nil
		}
	}
	return p.name(&l.Port, "port number or name of a service")
}

func (p *parser) listenPKI(l *listener) *Error {
	pos := p.tok.pos
	var name string
	var t TableRef
	if err := p.pkiArg(&name, &t); err != nil {
		return err
	}
	if name != "" {
		l.PKINames = append(l.PKINames, name)
	} else {
		l.PKITables = append(l.PKITables, t)
	}
	if len(l.PKINames)+len(l.PKITables) > maxListenerPKI {
		return errorAt(pos, "more than %d pki options", maxListenerPKI)
	}
	return nil
}

func (p *parser) listenAuth(l *listener, mode AuthMode) *Error {
	l.Auth = mode
	if !p.isTable() || p.isContextual(listenOptions()) {
		return nil
	}
	return p.tableArg(&l.AuthTable, "auth", anyShape)
}

// isContextual reports whether the next word is an option that is no reserved
// word, and so could be mistaken for a text that may be left out.
func (p *parser) isContextual(opts []option[listener]) bool {
	for _, o := range opts {
		if p.isWord(o.word) {
			return true
		}
	}
	return false
}

func (p *parser) senders(l *listener) *Error {
	if err := p.tableArg(&l.Senders, "senders", mapOrDynamic); err != nil {
		return err
	}
	l.Masquerade = p.accept("masquerade")
	return nil
}

func (p *parser) tag(l *listener) *Error {
	pos := p.tok.pos
	if err := p.name(&l.Tag, "tag"); err != nil {
		return err
	}
	if len(l.Tag) > maxTag {
		return errorAt(pos, "tag is longer than %d bytes", maxTag)
	}
	return nil
}

// listenSMTP reads the long form, `smtp bare-newline normalize`.
func (p *parser) listenSMTP(l *listener) *Error {
	if err := p.keyword("bare-newline"); err != nil {
		return err
	}
	return p.listenBareNewline(l)
}

func (p *parser) listenBareNewline(l *listener) *Error {
	word, err := p.oneOf("normalize", "reject")
	normalize := word == "normalize"
	l.bareNewline = &normalize
	return err
}

// checkListener finds options that contradict each other within one directive.
func checkListener(l *listener) *Error {
	hasTLS := l.TLS != TLSNone
	switch {
	case hasTLS:
	case l.Auth != AuthNone:
		return errorAt(l.Pos, "auth requires tls, tls-require or smtps")
	case len(l.PKINames)+len(l.PKITables) > 0:
		return errorAt(l.Pos, "pki requires tls, tls-require or smtps")
	case l.Verify != VerifyNone:
		return errorAt(l.Pos, "verify requires tls-require or smtps")
	case l.CertAuth != "":
		return errorAt(l.Pos, "cert-auth requires tls, tls-require or smtps")
	}
	if err := checkHandshake(l.Pos, l.Handshake); err != nil {
		return err
	}
	if l.TLS == TLSStart && l.Verify == VerifyRequire {
		return errorAt(l.Pos, "a client that need not use TLS cannot be made to present a certificate; "+
			"expected tls-require verify, smtps verify or tls verify optional")
	}
	if l.CertAuth != "" && l.Verify == VerifyNone {
		l.Verify = VerifyOptional
	}
	if l.Port == "" {
		l.Port = "25"
		if l.TLS == TLSImplicit {
			l.Port = "465"
		}
	}
	return nil
}
