package config

import (
	"slices"
	"strings"
)

// proc reads `proc NAME "command"`.
func (p *parser) proc(pos Pos) *Error {
	r := Proc{Pos: pos}
	at := p.tok.pos
	if err := p.name(&r.Name, "name of a filter process"); err != nil {
		return err
	}
	if slices.ContainsFunc(p.cfg.Procs, func(o Proc) bool { return o.Name == r.Name }) {
		return errorAt(at, "proc %q already exists", r.Name)
	}
	if err := p.into(&r.Command, "command"); err != nil {
		return err
	}
	if err := parseOptions(p, &r, procOptions()); err != nil {
		return err
	}
	p.cfg.Procs = append(p.cfg.Procs, r)
	return nil
}

// procOptions say as whom a program runs.
func procOptions() []option[Proc] {
	return []option[Proc]{
		{word: "chroot", parse: func(p *parser, r *Proc) *Error { return p.absPath(&r.Chroot, "directory") }},
		text("group", "group", func(r *Proc) *string { return &r.Group }),
		text("user", "user", func(r *Proc) *string { return &r.User }),
	}
}

// filter reads one of the four forms of `filter NAME`.
func (p *parser) filter(pos Pos) *Error {
	f := Filter{Pos: pos}
	at := p.tok.pos
	if err := p.name(&f.Name, "name of a filter"); err != nil {
		return err
	}
	if p.findFilter(f.Name) != nil {
		return errorAt(at, "filter %q already exists", f.Name)
	}
	word, err := p.oneOf("chain", "phase", "proc", "proc-exec")
	if err != nil {
		return err
	}
	switch word {
	case "chain":
		err = p.chain(&f.Chain)
	case "phase":
		err = p.phase(&f)
	case "proc":
		err = p.filterProc(&f)
	case "proc-exec":
		err = p.procExec(&f)
	}
	if err != nil {
		return err
	}
	p.cfg.Filters = append(p.cfg.Filters, f)
	return nil
}

func (p *parser) findFilter(name string) *Filter {
	i := slices.IndexFunc(p.cfg.Filters, func(f Filter) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return &p.cfg.Filters[i]
}

func (p *parser) filterProc(f *Filter) *Error {
	pos := p.tok.pos
	if err := p.name(&f.Proc, "name of a proc"); err != nil {
		return err
	}
	if !slices.ContainsFunc(p.cfg.Procs, func(o Proc) bool { return o.Name == f.Proc }) {
		return errorAt(pos, "no such proc: %q; it must be declared before it is used", f.Proc)
	}
	return nil
}

func (p *parser) procExec(f *Filter) *Error {
	if err := p.into(&f.Command, "command"); err != nil {
		return err
	}
	var r Proc
	err := parseOptions(p, &r, procOptions())
	f.User, f.Group, f.Chroot = r.User, r.Group, r.Chroot
	return err
}

// filterArg reads the `filter` option: a name, or a list that is a chain.
func (p *parser) filterArg(to *[]string) *Error {
	if p.isPunct("{") {
		return p.chain(to)
	}
	var name string
	pos := p.tok.pos
	if err := p.name(&name, "name of a filter, or { list }"); err != nil {
		return err
	}
	if p.findFilter(name) == nil {
		return errorAt(pos, "no such filter: %q; it must be declared before it is used", name)
	}
	*to = []string{name}
	return nil
}

// chain reads { a, b }: filters that are no chains, each filter and each proc once.
func (p *parser) chain(to *[]string) *Error {
	if err := p.punct("{"); err != nil {
		return err
	}
	procs := make(map[string]bool)
	for p.separators(); !p.isPunct("}"); p.separators() {
		pos := p.tok.pos
		var name string
		if err := p.name(&name, "name of a filter, or }"); err != nil {
			return err
		}
		f := p.findFilter(name)
		switch {
		case f == nil:
			return errorAt(pos, "no such filter: %q; it must be declared before it is used", name)
		case f.Chain != nil:
			return errorAt(pos, "filter %q is a chain, which cannot be part of a chain", name)
		case slices.Contains(*to, name):
			return errorAt(pos, "filter %q is in the chain already", name)
		case f.Proc != "" && procs[f.Proc]:
			return errorAt(pos, "proc %q of filter %q is in the chain already", f.Proc, name)
		}
		procs[f.Proc] = true
		*to = append(*to, name)
	}
	if len(*to) == 0 {
		return errorAt(p.tok.pos, "empty chain; expected the name of a filter")
	}
	p.next()
	return nil
}

// filterPhases are the phases of built-in filters, each with the conditions that
// can be known then.
func filterPhases() map[string][]string {
	connect := []string{"fcrdns", "rdns", "src"}
	helo := append(slices.Clone(connect), "helo")
	auth := append(slices.Clone(helo), "auth")
	from := append(slices.Clone(auth), "mail-from")
	return map[string][]string{
		"connect": connect, "helo": helo, "ehlo": helo, "auth": auth, "mail-from": from,
		"rcpt-to": append(slices.Clone(from), "rcpt-to"), "data": from, "commit": from,
	}
}

// phase reads PHASE match [!]CONDITION DECISION.
func (p *parser) phase(f *Filter) *Error {
	phases := filterPhases()
	var names []string
	for name := range phases {
		names = append(names, name)
	}
	var err *Error
	if f.Phase, err = p.oneOf(names...); err != nil {
		return err
	}
	if err := p.keyword("match"); err != nil {
		return err
	}
	if err := p.filterCond(f, phases[f.Phase]); err != nil {
		return err
	}
	return p.decision(f)
}

func (p *parser) filterCond(f *Filter, kinds []string) *Error {
	f.Cond.Pos = p.tok.pos
	if f.Cond.Negate = p.isPunct("!"); f.Cond.Negate {
		p.next()
	}
	var err *Error
	if f.CondKind, err = p.oneOf(kinds...); err != nil {
		return err
	}
	switch f.CondKind {
	case "fcrdns":
		return nil
	case "rdns", "auth":
		return p.condTable(&f.Cond, f.CondKind, listOrDynamic, true)
	case "mail-from", "rcpt-to":
		return p.condTable(&f.Cond, f.CondKind, anyShape, false)
	}
	return p.condTable(&f.Cond, f.CondKind, listOrDynamic, false)
}

func (p *parser) decision(f *Filter) *Error {
	decisions := []string{"disconnect", "reject", "report", "rewrite"}
	if f.Phase != "commit" {
		decisions = append(decisions, "bypass", "junk")
	}
	var err *Error
	if f.Decision, err = p.oneOf(decisions...); err != nil {
		return err
	}
	if f.Decision == "bypass" || f.Decision == "junk" {
		return nil
	}
	pos := p.tok.pos
	if err := p.into(&f.Value, "text for "+f.Decision); err != nil {
		return err
	}
	if hasControl(f.Value) {
		return errorAt(pos, "control character in the text for %s", f.Decision)
	}
	if (f.Decision == "reject" || f.Decision == "disconnect") && !isReply(f.Value) {
		return errorAt(pos, "%q; expected a reply such as \"550 not here\", with a code of 4xx or 5xx", f.Value)
	}
	return nil
}

// isReply reports whether s is a 4xx or 5xx reply with a text.
func isReply(s string) bool {
	code, text, _ := strings.Cut(s, " ")
	return len(code) == 3 && (code[0] == '4' || code[0] == '5') &&
		isDigit(int(code[1])) && isDigit(int(code[2])) && strings.TrimSpace(text) != ""
}
