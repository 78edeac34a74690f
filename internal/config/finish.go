package config

import "crypto/tls"

// finish checks what only the whole text can tell, and applies defaults.
func (p *parser) finish() {
	fail := func(err *Error) { p.errs = append(p.errs, err) }
	for _, k := range p.cfg.PKIs {
		if k.CertFile == "" || k.KeyFile == "" {
			fail(errorAt(k.Pos, "pki %q needs both cert and key", k.Name))
		}
	}
	for i := range p.cfg.Listeners {
		p.finishListener(&p.cfg.Listeners[i], p.bareNewline[i])
		if l := &p.cfg.Listeners[i]; l.TLS != TLSNone && len(l.PKINames)+len(l.PKITables) == 0 {
			fail(errorAt(l.Pos, "tls, tls-require and smtps need a certificate; expected pki NAME or pki <table> "+
				"in this line, or a global pki <table>"))
		}
	}
	for i := range p.cfg.Actions {
		a := &p.cfg.Actions[i]
		if a.Method == MethodRelay && a.CAName == "" && a.CATable == "" {
			a.CATable = p.cfg.DefaultCA
		}
	}
	if len(p.cfg.Matches) == 0 {
		fail(errorAt(p.tok.pos, "no match rule, so no mail could be accepted; expected at least one"))
	}
}

// finishListener applies the global pki, ca and bare-newline to a listener.
func (p *parser) finishListener(l *Listener, bareNewline *bool) {
	if l.TLS != TLSNone && len(l.PKINames)+len(l.PKITables) == 0 {
		l.PKITables = p.cfg.DefaultPKI
	}
	if l.Verify != VerifyNone && l.CAName == "" && l.CATable == "" {
		l.CATable = p.cfg.DefaultCA
	}
	if l.CertAuth != "" && l.CAName == "" && l.CATable == "" {
		// The system's authorities vouch for everybody in the world.
		p.errs = append(p.errs, errorAt(l.Pos, "cert-auth needs the authorities that may vouch for clients; expected ca NAME or ca <TABLE> here, or a global ca <TABLE>"))
	}
	if l.TLS != TLSNone && len(l.Handshake.Suites) == 0 && l.Handshake.Min != tls.VersionTLS13 {
		l.Handshake.Suites = p.cfg.SMTP.Ciphers
	}
	l.NormalizeBareNewline = p.cfg.SMTP.NormalizeBareNewline
	if bareNewline != nil {
		l.NormalizeBareNewline = *bareNewline
	}
}

// contextualWords are Tabard's words and others that mean something in one place
// only, beside those of directives and options.
func contextualWords() []string {
	all := []string{
		"cache", "off", "stale-ttl", "optional", "normalize", "sql", "require", "best-effort", "retry", "master-key", "passphrases",
		"lookup", "smtpd", "opensmtpd", "tabard", "none", "auto", "legacy", "read-only",
		"max-session", "max-session-per-user", "max-evp-batch-size", "max-inflight", "max-msg-batch-size", "max-schedule",
	}
	all = append(all, smtpLimitWords()...)
	all = append(all, mtaLimits()...)
	all = append(all, methodWords()...)
	all = append(all, optionWords(tableOptions())...)
	all = append(all, optionWords(pkiOptions())...)
	all = append(all, optionWords(listenOptions())...)
	all = append(all, optionWords(procOptions())...)
	all = append(all, optionWords(localOptions(MethodMaildir))...)
	all = append(all, optionWords(relayOptions())...)
	return append(all, optionWords(matchOptions())...)
}
