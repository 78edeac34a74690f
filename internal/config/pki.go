package config

import (
	"slices"
	"strings"

	"tabard/internal/address"
)

// pki reads `pki <table>`, or `pki NAME` and what is known of its certificate.
// Several lines for one name add up.
func (p *parser) pki(pos Pos) *Error {
	if p.isPunct("<") {
		var t TableRef
		if err := p.tableRef(&t, "pki", mapOrDynamic); err != nil {
			return err
		}
		p.cfg.DefaultPKI = append(p.cfg.DefaultPKI, t)
		return nil
	}
	name, err := p.certName()
	if err != nil {
		return err
	}
	return parseOptions(p, p.findPKI(pos, name), pkiOptions())
}

func pkiOptions() []option[PKI] {
	return []option[PKI]{
		{word: "cert", parse: func(p *parser, k *PKI) *Error { return p.certFile(&k.CertFile, "cert") }},
		{word: "key", parse: func(p *parser, k *PKI) *Error { return p.certFile(&k.KeyFile, "key") }},
		{word: "dhe", parse: func(p *parser, k *PKI) *Error {
			p.tok.text = strings.ToLower(p.tok.text)
			mode, err := p.oneOf("none", "auto", "legacy")
			k.DHE = mode
			return err
		}},
	}
}

// certFile reads a path that may be given once, over all lines of a name.
func (p *parser) certFile(to *string, word string) *Error {
	if *to != "" {
		return errorAt(p.tok.pos, "%s already specified", word)
	}
	return p.absPath(to, "path of a PEM file")
}

// findPKI returns the entry of a name, which it makes if there is none.
func (p *parser) findPKI(pos Pos, name string) *PKI {
	i := slices.IndexFunc(p.cfg.PKIs, func(k PKI) bool { return k.Name == name })
	if i < 0 {
		i = len(p.cfg.PKIs)
		p.cfg.PKIs = append(p.cfg.PKIs, PKI{Pos: pos, Name: name})
	}
	return &p.cfg.PKIs[i]
}

// ca reads `ca <table>` or `ca NAME cert "file"`.
func (p *parser) ca(pos Pos) *Error {
	if p.isPunct("<") {
		if p.cfg.DefaultCA != "" {
			return errorAt(pos, "ca <table> already specified")
		}
		return p.tableRef(&p.cfg.DefaultCA, "ca", mapOrDynamic)
	}
	name, err := p.certName()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(p.cfg.CAs, func(c CA) bool { return c.Name == name })
	if i >= 0 {
		return errorAt(pos, "ca %q was already declared at %s", name, p.cfg.CAs[i].Pos)
	}
	c := CA{Pos: pos, Name: name}
	if err := p.keyword("cert"); err != nil {
		return err
	}
	if err := p.absPath(&c.CertFile, "path of a PEM file"); err != nil {
		return err
	}
	p.cfg.CAs = append(p.cfg.CAs, c)
	return nil
}

// certName reads the name of a pki or ca: a host name or "*".
func (p *parser) certName() (string, *Error) {
	pos := p.tok.pos
	name, err := p.str("<table>, a host name or \"*\"")
	if err != nil || name == "*" {
		return name, err
	}
	// A wildcard certificate may go by its own name.
	if err := address.CheckDomain(strings.TrimPrefix(name, "*.")); err != nil || strings.HasPrefix(name, "[") {
		return "", errorAt(pos, "%q; expected a host name or \"*\"", name)
	}
	return strings.ToLower(name), nil
}

// pkiArg reads the `pki` option of a listener or action: a name or a <table>.
func (p *parser) pkiArg(name *string, t *TableRef) *Error {
	if p.isPunct("<") {
		return p.tableRef(t, "pki", mapOrDynamic)
	}
	pos := p.tok.pos
	n, err := p.certName()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(p.cfg.PKIs, func(k PKI) bool { return k.Name == n }) {
		return errorAt(pos, "no such pki: %q; it must be declared before it is used", n)
	}
	*name = n
	return nil
}

// caArg reads the `ca` option of a listener or action: a name or a <table>.
func (p *parser) caArg(name *string, t *TableRef) *Error {
	if p.isPunct("<") {
		return p.tableRef(t, "ca", mapOrDynamic)
	}
	pos := p.tok.pos
	n, err := p.certName()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(p.cfg.CAs, func(c CA) bool { return c.Name == n }) {
		return errorAt(pos, "no such ca: %q; it must be declared before it is used", n)
	}
	*name = n
	return nil
}
