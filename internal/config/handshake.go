package config

import (
	"crypto/tls"

	"tabard/internal/tlsopt"
)

// ciphersOption is `ciphers STRING` of a listener or relay action.
func ciphersOption[T any](field func(t *T) *tlsopt.Options) option[T] {
	return option[T]{word: "ciphers", parse: func(p *parser, t *T) *Error { return p.ciphers(&field(t).Suites) }}
}

// protocolsOption is `protocols STRING`.
func protocolsOption[T any](field func(t *T) *tlsopt.Options) option[T] {
	return option[T]{word: "protocols", parse: func(p *parser, t *T) *Error {
		at := p.tok.pos
		var text string
		if err := p.into(&text, "list of TLS versions"); err != nil {
			return err
		}
		o, err := tlsopt.Parse(text, "")
		if err != nil {
			return errorAt(at, "%v", err)
		}
		field(t).Min, field(t).Max = o.Min, o.Max
		return nil
	}}
}

func (p *parser) ciphers(suites *[]uint16) *Error {
	at := p.tok.pos
	var text string
	if err := p.into(&text, "list of ciphers"); err != nil {
		return err
	}
	o, err := tlsopt.Parse("", text)
	if err != nil {
		return errorAt(at, "%v", err)
	}
	*suites = o.Suites
	return nil
}

// checkHandshake finds ciphers that could never be used.
func checkHandshake(pos Pos, o tlsopt.Options) *Error {
	if len(o.Suites) > 0 && o.Min == tls.VersionTLS13 {
		return errorAt(pos, "ciphers have no effect where protocols leave TLS 1.3 only, whose ciphers cannot be chosen")
	}
	return nil
}
