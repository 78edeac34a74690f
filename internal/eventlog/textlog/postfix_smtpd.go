package textlog

import (
	"cmp"
	"regexp"
	"strings"

	"tabard/internal/eventlog"
)

// peer returns what the process of the line does.
func (p *postfix) peer() *peer {
	k := [2]string{p.r.now.host, p.r.now.program + " " + p.r.now.pid}
	s, ok := p.peers.get(k)
	if !ok {
		s = &peer{}
		p.peers.put(k, s)
	}
	return s
}

// clientName is NAME[ADDRESS], with a port where the program tells it.
var clientName = regexp.MustCompile(`^([^\s\[\]]*)\[([^\s\[\]]*)\](?::\d+)?`)

func client(s string) (name, addr string) {
	if m := clientName.FindStringSubmatch(s); m != nil {
		return m[1], strings.TrimPrefix(m[2], "IPv6:")
	}
	return "", ""
}

// smtpdEnds is why a session is about to end.
var smtpdEnds = regexp.MustCompile(`^(lost connection|timeout|too many errors|improper command pipelining|SSL_accept error|bare <?LF>? received)(?: after ([A-Z][A-Za-z-]*(?: \([^)]*\))?))?.* from `)

// smtpdTLS is `Untrusted TLS connection established from NAME[ADDRESS]: TLSv1.3 with
// cipher X (256/256 bits) ...`.
var smtpdTLS = regexp.MustCompile(`^(Anonymous|Untrusted|Trusted|Verified|Unverified) TLS connection (?:established|reused) (?:from|to) (\S+?):? (\S+) with cipher (\S+)`)

// smtpdOther is what makes no event.
var smtpdOther = regexp.MustCompile(`^(?:\S+\[[^\]]*\](?::\d+)?: |discarding EHLO|client certificate|proxy-|setting up TLS|certificate |issuer|subject|fingerprint|` +
	`CONNECT from|PASS |DNSBL |PREGREET|HANGUP|WHITELIST|ALLOWLIST|DENYLIST|BLACKLIST|BARE NEWLINE|NON-SMTP|COMMAND |DATA without|DISCONNECT|cache |entering |stopping |TLS |tls_|` +
	`(?:reject_warning|warn|info|hold|filter|redirect|discard|bcc|permit|trace|prepend|milter-[a-z]+|client-[a-z-]+|replace|delay|DISCARD|FILTER|HOLD): )`)

// smtpd reads a line of Postfix's smtpd, or of postscreen.
func (p *postfix) smtpd(id, text string) error {
	switch {
	case strings.HasPrefix(text, "client="):
		p.accepted(id, text)
		return nil
	case strings.HasPrefix(text, "connect from "):
		s := p.peer()
		*s = peer{id: p.r.id()}
		s.session = eventlog.Session{ID: s.id, Direction: eventlog.In, Began: p.r.now.at}
		s.session.Name, s.session.Peer = client(text[len("connect from "):])
		return nil
	case strings.HasPrefix(text, "disconnect from "):
		p.disconnected(text[len("disconnect from "):])
		return nil
	}
	if m := smtpdEnds.FindStringSubmatch(text); m != nil {
		s := &p.peer().session
		s.Reason = m[1]
		if m[2] != "" {
			s.Reason += " after " + m[2]
		}
		return nil
	}
	if m := smtpdTLS.FindStringSubmatch(text); m != nil {
		s := &p.peer().session
		s.TLS = m[3] + ":" + m[4]
		switch m[1] {
		case "Trusted", "Verified":
			s.Verdict = "verified"
		default:
			s.Verdict = "unchecked"
		}
		return nil
	}
	if p.refusal(id, text) || smtpdOther.MatchString(text) {
		return nil
	}
	return misread("smtpd says something unknown")
}

// accepted takes a transaction: client=NAME[ADDRESS], sasl_method=..., sasl_username=...
func (p *postfix) accepted(id, text string) {
	s := p.peer()
	f := pairs(text)
	if user := f["sasl_username"]; user != "" {
		s.session.Login = user
	}
	if id == "" { // a proxy in front of the queue has the message
		return
	}
	s.session.Messages++
	m := p.begin(id)
	_, m.message.Peer = client(f["client"])
	m.message.Login, m.message.Session = f["sasl_username"], s.id
	if _, addr := client(f["orig_client"]); addr != "" {
		m.message.Peer = addr
	}
}

// disconnected tells of the session: NAME[ADDRESS] ehlo=1 mail=1 ... commands=6.
func (p *postfix) disconnected(text string) {
	s := p.peer()
	e := s.session
	e.Head = p.r.head("session")
	if s.id == "" { // its begin is not in the log
		e.ID, e.Direction, e.Began = p.r.id(), eventlog.In, p.r.now.at
		e.Name, e.Peer = client(text)
	}
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "data": // 1/2: one of two was taken
			value, _, _ = strings.Cut(value, "/")
			e.Messages = count(value)
		case "quit":
			e.Reason = cmp.Or(e.Reason, "quit")
		}
	}
	e.Reason = cmp.Or(e.Reason, "disconnect")
	*s = peer{}
	p.r.give(&e)
}

// refused is `reject: RCPT from NAME[ADDRESS]: 550 5.1.1 <x>: ...; from=<> to=<>
// proto=ESMTP helo=<y>`, with a line of the header where cleanup says it.
var (
	refused   = regexp.MustCompile(`^(?:reject|milter-reject|proxy-reject): (.*?) from (\S+): (.*)$`)
	onContent = regexp.MustCompile(`^reject: ((?:mime |nested )?(?:header|body)) (.*) from (\S+); (from=<.*)$`)
	whoRefuse = regexp.MustCompile(`; (?:client=\S+?, )?from=<(.*?)>(?:,? to=<(.*?)>)?(?:,? proto=\S+)?(?:,? helo=<(.*?)>)?(?:: (.*))?$`)
)

// refusal tells of a refused recipient or message, and reports whether the line is one.
func (p *postfix) refusal(id, text string) bool {
	m := refused.FindStringSubmatch(text)
	if c := onContent.FindStringSubmatch(text); c != nil {
		m = []string{"", "", c[3], "; " + c[4]}
	}
	if m == nil {
		return false
	}
	e := &eventlog.Result{Head: p.r.head("rejected"), Result: eventlog.Rejected}
	reply := m[3]
	if w := whoRefuse.FindStringSubmatch(reply); w != nil {
		e.Sender, e.Address = w[1], w[2]
		reply = cmp.Or(strings.TrimSuffix(reply, w[0]), w[4])
		p.helo(w[3])
	}
	e.Code, e.Status, e.Text = splitReply(reply)
	switch p.r.now.program[strings.LastIndexByte(p.r.now.program, '/')+1:] {
	case "cleanup":
		if known, ok := p.mails.get([2]string{p.r.now.host, id}); ok {
			e.Session = known.message.Session
			known.waiting = nil
			p.mails.drop(known.key)
		}
	default:
		e.Session = p.peer().id
	}
	p.r.give(e)
	return true
}

// smtpdLogin is `warning: NAME[ADDRESS]: SASL PLAIN authentication failed: REASON, sasl_username=USER`.
var smtpdLogin = regexp.MustCompile(`^warning: \S+\[[^\s\]]*\](?::\d+)?: (SASL \S+ authentication failed.*)$`)

// loginRefused tells of a login that failed, and reports whether the line is one.
func (p *postfix) loginRefused(text string) bool {
	m := smtpdLogin.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	e := &eventlog.Result{Head: p.r.head("rejected"), Result: eventlog.Rejected}
	e.Session, e.Text = p.peer().id, m[1]
	p.r.give(e)
	return true
}

// helo keeps what the client called itself. Of sessions without a refusal it is not told.
func (p *postfix) helo(name string) {
	if s := p.peer(); s.id != "" && name != "" {
		s.session.Helo = name
	}
}
