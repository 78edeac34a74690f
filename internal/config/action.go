package config

import (
	"net"
	"slices"
	"strings"
	"time"
)

// action reads `action "NAME" METHOD options`.
func (p *parser) action(pos Pos) *Error {
	a := &Action{Pos: pos}
	at := p.tok.pos
	if err := p.name(&a.Name, "name of an action"); err != nil {
		return err
	}
	if old := p.findAction(a.Name); old != nil {
		return errorAt(at, "action %q was already declared at %s", a.Name, old.Pos)
	}
	if err := p.method(a); err != nil {
		return err
	}
	p.cfg.Actions = append(p.cfg.Actions, *a)
	return nil
}

func (p *parser) findAction(name string) *Action {
	i := slices.IndexFunc(p.cfg.Actions, func(a Action) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &p.cfg.Actions[i]
}

// method reads the delivery method and all that belongs to it.
func (p *parser) method(a *Action) *Error {
	word, err := p.oneOf(methodWords()...)
	if err != nil {
		return err
	}
	a.Method = Method(word)
	switch a.Method {
	case MethodRelay:
		return p.relay(a)
	case MethodMaildir:
		err = p.maildir(a)
	case MethodLMTP:
		err = p.lmtp(a)
	case MethodMDA:
		err = p.template(&a.Command, "command")
	}
	if err != nil {
		return err
	}
	return parseOptions(p, a, localOptions(a.Method))
}

func methodWords() []string {
	return []string{string(MethodMbox), string(MethodMaildir), string(MethodLMTP), string(MethodMDA),
		string(MethodForwardOnly), string(MethodExpandOnly), string(MethodRelay)}
}

// localOptions are those of a local method. mbox delivers as the recipient, and
// the two -only methods deliver nothing themselves: they have no user.
func localOptions(m Method) []option[Action] {
	opts := []option[Action]{
		{word: "alias", parse: func(p *parser, a *Action) *Error { return p.expansion(&a.Alias, "alias") }, group: "alias or virtual"},
		{word: "virtual", parse: func(p *parser, a *Action) *Error { return p.expansion(&a.Virtual, "virtual") }, group: "alias or virtual"},
		tableOption("userbase", mapOrDynamic, func(a *Action) *TableRef { return &a.UserBase }),
		{word: "wrapper", parse: (*parser).wrapperArg},
		{word: "ttl", parse: (*parser).actionTTL},
	}
	if m != MethodMbox && m != MethodForwardOnly && m != MethodExpandOnly {
		opts = append(opts, text("user", "user", func(a *Action) *string { return &a.User }))
	}
	return opts
}

func (p *parser) expansion(to *TableRef, word string) *Error {
	return p.tableArg(to, word, mapOrDynamic)
}

func (p *parser) actionTTL(a *Action) (err *Error) {
	a.TTL, err = p.delay(time.Second)
	return err
}

func (p *parser) wrapperArg(a *Action) *Error {
	pos := p.tok.pos
	if err := p.name(&a.Wrapper, "name of an mda wrapper"); err != nil {
		return err
	}
	if !slices.ContainsFunc(p.cfg.Wrappers, func(w Wrapper) bool { return w.Name == a.Wrapper }) {
		return errorAt(pos, "no such mda wrapper: %q; it must be declared before it is used", a.Wrapper)
	}
	return nil
}

// maildir reads ["path"] [junk].
func (p *parser) maildir(a *Action) *Error {
	if p.isStr() {
		pos := p.tok.pos
		if err := p.template(&a.Path, "path of a maildir"); err != nil {
			return err
		}
		if !strings.HasPrefix(a.Path, "/") && !strings.HasPrefix(a.Path, "~/") && !strings.HasPrefix(a.Path, "%{") || hasControl(a.Path) {
			return errorAt(pos, `%q; expected a path that begins with / or ~/ or %%{`, a.Path)
		}
	}
	a.Junk = p.accept("junk")
	return nil
}

// lmtp reads DEST [rcpt-to]. The port is 25 when none is given, as in OpenSMTPD.
func (p *parser) lmtp(a *Action) *Error {
	pos := p.tok.pos
	if err := p.template(&a.LMTP, "host:port or the path of a socket"); err != nil {
		return err
	}
	// A template is checked when it is expanded.
	if !strings.HasPrefix(a.LMTP, "/") && !strings.Contains(a.LMTP, "%") {
		host, port, err := splitHostPort(a.LMTP)
		if err != nil {
			return errorAt(pos, "%q: %v; expected host:port or the path of a socket", a.LMTP, err)
		}
		if port == "" {
			port = "25"
		}
		a.LMTP = net.JoinHostPort(host, port)
	}
	if hasControl(a.LMTP) {
		return errorAt(pos, "control character in %q", a.LMTP)
	}
	a.RcptTo = p.accept("rcpt-to")
	return nil
}
