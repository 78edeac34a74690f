package config

import "strings"

// mtaLimitWords are the keys of `mta limit`, all with a number.
const mtaLimitWords = `max-conn-per-host max-conn-per-route max-conn-per-source max-conn-per-connector
max-conn-per-relay max-conn-per-domain conn-delay-host conn-delay-route conn-delay-source
conn-delay-connector conn-delay-relay conn-delay-domain reconn-delay-route session-mail-max
session-transaction-delay session-keepalive max-failures-per-session task-hiwat task-lowat task-release`

func mtaLimits() []string { return strings.Fields(mtaLimitWords) }

// mta reads `mta max-deferred N` or `mta limit [for domain D] KEY N ...`.
func (p *parser) mta(pos Pos) *Error {
	word, err := p.oneOf("limit", "max-deferred")
	if err != nil {
		return err
	}
	p.cfg.Where["mta "+word] = pos
	if word == "max-deferred" {
		p.cfg.MTA.MaxDeferred, err = p.count(0, maxLimit)
		return err
	}
	l := MTALimit{Pos: pos}
	if p.accept("for") {
		if err := p.keyword("domain"); err != nil {
			return err
		}
		if err := p.name(&l.Domain, "domain"); err != nil {
			return err
		}
	}
	for p.tok.kind != tokNewline && p.tok.kind != tokEOF {
		l.Value = 0
		if l.Key, err = p.oneOf(append(mtaLimits(), "inet4", "inet6")...); err != nil {
			return err
		}
		if l.Key != "inet4" && l.Key != "inet6" {
			if l.Value, err = p.count(0, maxLimit); err != nil {
				return err
			}
		}
		p.cfg.MTA.Limits = append(p.cfg.MTA.Limits, l)
	}
	return nil
}
