package config

// rule is a Match while it is read; negate is set by the `!` before a condition.
type rule struct {
	Match
	negate bool
	at     Pos // of the condition being read
}

// match reads `match [!]CONDITION... action "NAME"` or `... reject`.
func (p *parser) match(pos Pos) *Error {
	r := &rule{Match: Match{Pos: pos}}
	opts := matchOptions()
	seen := make(map[string]bool)
	for !p.isWord("action") && !p.isWord("reject") {
		r.at = p.tok.pos
		if r.negate = p.isPunct("!"); r.negate {
			p.next()
		}
		if p.tok.kind == tokNewline || p.tok.kind == tokEOF {
			return p.unexpected(append(optionWords(opts), "action", "reject")...)
		}
		if err := parseOption(p, r, opts, seen, []string{"action", "reject"}); err != nil {
			return err
		}
	}
	if err := p.verdict(r); err != nil {
		return err
	}
	p.cfg.Matches = append(p.cfg.Matches, r.Match)
	return nil
}

// verdict reads what becomes of mail that fits the rule.
func (p *parser) verdict(r *rule) *Error {
	if r.Reject = p.accept("reject"); r.Reject {
		return nil
	}
	p.next()
	pos := p.tok.pos
	if err := p.name(&r.Action, "name of an action"); err != nil {
		return err
	}
	if p.findAction(r.Action) == nil {
		return errorAt(pos, "no such action: %q; it must be declared before it is used", r.Action)
	}
	return nil
}

func matchOptions() []option[rule] {
	return []option[rule]{
		{word: "from", parse: (*parser).matchFrom},
		{word: "for", parse: (*parser).matchFor},
		condition("tag", listOrDynamic, false, func(r *rule) **Cond { return &r.Tag }),
		condition("helo", listOrDynamic, false, func(r *rule) **Cond { return &r.Helo }),
		condition("auth", listOrDynamic|shapeMap, true, func(r *rule) **Cond { return &r.Auth }),
		condition("mail-from", anyShape, false, func(r *rule) **Cond { return &r.MailFrom }),
		condition("rcpt-to", anyShape, false, func(r *rule) **Cond { return &r.RcptTo }),
		{word: "tls", parse: func(p *parser, r *rule) *Error {
			r.TLS, r.TLSVerified = r.cond(), p.accept("verified")
			return nil
		}},
	}
}

// cond begins the condition whose keyword was just read.
func (r *rule) cond() *Cond { return &Cond{Pos: r.at, Negate: r.negate} }

func condition(word string, shapes shape, optional bool, field func(*rule) **Cond) option[rule] {
	return option[rule]{word: word, parse: func(p *parser, r *rule) *Error {
		c := r.cond()
		*field(r) = c
		return p.condTable(c, word, shapes, optional)
	}}
}

// condTable reads the value of a condition: [regex] <table>, { list } or a text.
func (p *parser) condTable(c *Cond, word string, shapes shape, optional bool) *Error {
	if c.Regex = p.accept("regex"); c.Regex {
		return p.tableArg(&c.Table, word+" regex", listOrDynamic)
	}
	if optional && !p.isTable() {
		return nil
	}
	return p.tableArg(&c.Table, word, shapes)
}

// matchFrom reads any, local, socket, src X, rdns [X], auth [X] or mail-from X.
func (p *parser) matchFrom(r *rule) *Error {
	r.FromCond = *r.cond()
	word, err := p.oneOf("any", "auth", "local", "mail-from", "rdns", "socket", "src")
	if err != nil {
		return err
	}
	switch word {
	case "any":
		r.From = FromAny
	case "socket":
		r.From = FromSocket
	case "src":
		r.From = FromSrc
		return p.condTable(&r.FromCond, "from src", listOrDynamic, false)
	case "rdns":
		r.From = FromRDNS
		return p.condTable(&r.FromCond, "from rdns", listOrDynamic, true)
	case "auth":
		r.From = FromAuth
		return p.condTable(&r.FromCond, "from auth", anyShape, true)
	case "mail-from":
		r.From = FromMailFrom
		return p.condTable(&r.FromCond, "from mail-from", anyShape, false)
	}
	return nil
}

// matchFor reads any, local, domain X or rcpt-to X.
func (p *parser) matchFor(r *rule) *Error {
	r.ForCond = *r.cond()
	word, err := p.oneOf("any", "domain", "local", "rcpt-to")
	if err != nil {
		return err
	}
	switch word {
	case "any":
		r.For = ForAny
	case "domain":
		r.For = ForDomain
		return p.condTable(&r.ForCond, "for domain", listOrDynamic, false)
	case "rcpt-to":
		r.For = ForRcptTo
		return p.condTable(&r.ForCond, "for rcpt-to", anyShape, false)
	}
	return nil
}
