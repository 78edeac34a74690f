package textlog

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tabard/internal/eventlog"
)

// Bounds of what is remembered of Postfix.
const (
	maxMails = 100_000 // messages and recipients of them in the queue
	maxPeers = 10_000  // processes that serve a client, or talk to a server
)

// postfix makes events of Postfix's lines. Lines about one message have its queue id,
// those about one client the process.
type postfix struct {
	r     *Reader
	mails *recent[[2]string, *mail] // by host and queue id
	peers *recent[[2]string, *peer] // by host and process id
}

// mail is a message in Postfix's queue.
type mail struct {
	key     [2]string
	begun   bool              // its begin is in the log
	message eventlog.Message  // as far as it is known
	waiting *eventlog.Message // is to be given
	told    bool              // was given
	rcpts   map[string]string // outcome of the last attempt, by address
}

// peer is what one process does: a session with a client, or with a server.
type peer struct {
	session eventlog.Session
	id      string // of the session
	at      string // address and port that tls is for
	tls     string // level
}

func newPostfix(r *Reader) *postfix {
	p := &postfix{r: r, peers: newRecent[[2]string, *peer](maxPeers, nil)}
	p.mails = newRecent[[2]string](maxMails, func(m *mail) { p.flush(m) })
	return p
}

func (p *postfix) finish() { p.mails.clear() }

// flush gives the event of a message, of which no more will be said.
func (p *postfix) flush(m *mail) {
	if m.waiting != nil {
		p.r.give(m.waiting)
		m.waiting = nil
	}
}

// mail returns the message of a queue id.
func (p *postfix) mail(id string) *mail {
	k := [2]string{p.r.now.host, id}
	m, ok := p.mails.get(k)
	if !ok {
		m = &mail{key: k, message: eventlog.Message{ID: id}}
		p.mails.put(k, m)
	}
	return m
}

// begin returns the message of a queue id that is new: ids are used again.
func (p *postfix) begin(id string) *mail {
	m := p.mail(id)
	if m.told {
		p.mails.drop(m.key)
		m = p.mail(id)
	}
	m.begun = true
	return m
}

// daemon says who reads the lines of which of Postfix's programs. Those of others are
// about no mail, or tell again what these tell.
func (p *postfix) daemon(name string) func(id, text string) error {
	switch name {
	case "smtpd", "postscreen", "qmqpd":
		return p.smtpd
	case "cleanup", "pickup":
		return p.cleanup
	case "qmgr", "nqmgr", "oqmgr":
		return p.qmgr
	case "smtp", "lmtp", "local", "virtual", "pipe", "error", "retry", "discard", "dane", "relay":
		return p.delivery(name)
	case "bounce", "defer", "trace":
		return p.bounce
	case "postsuper":
		return p.postsuper
	}
	return nil
}

// queueID is a short one, of hexadecimal digits, or a long one, which has a z but no
// vowels.
var queueID = regexp.MustCompile(`^([0-9A-F]{5,20}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,24}): (.*)$`)

// general is what any program may say.
var general = regexp.MustCompile(`^(?:(?:warning|error|fatal|panic|info|debug|statistics): |table .* has changed|daemon started|terminating on signal|` +
	`(?:initializing|SSL3|SSL_|TLS |setting up|restored|save session|[<>] )|open |dict_|using |auto_clnt|connecting|watchdog|rewrite_|private/)`)

// line reads a line of Postfix.
func (p *postfix) line(l *line) error {
	name := l.program[strings.LastIndexByte(l.program, '/')+1:]
	f := p.daemon(name)
	if f == nil || name == "smtpd" && p.loginRefused(l.text) || general.MatchString(l.text) {
		return nil
	}
	id, text := "", l.text
	if m := queueID.FindStringSubmatch(text); m != nil {
		id, text = m[1], m[2]
	} else if rest, ok := strings.CutPrefix(text, "NOQUEUE: "); ok {
		text = rest
	}
	return f(id, text)
}

// cleanup reads a line of cleanup, or of pickup.
func (p *postfix) cleanup(id, text string) error {
	if id == "" {
		return misread("no queue id")
	}
	key, value, _ := strings.Cut(text, "=")
	switch key {
	case "message-id":
		m := p.begin(id)
		m.message.HeaderID = unbracket(strings.TrimSpace(value))
		return nil
	case "resent-message-id":
		return nil
	case "uid": // pickup: uid=0 from=<root>
		m := p.begin(id)
		m.message.Peer, m.message.Protocol = "local", "local"
		return nil
	}
	if ok := p.refusal(id, text); ok {
		return nil
	}
	if cleanupOther.MatchString(text) {
		return nil
	}
	return misread("cleanup says something unknown")
}

// cleanupOther is what came of checks of the content, but for refusals.
var cleanupOther = regexp.MustCompile(`^(?:warning|warn|info|hold|filter|redirect|replace|prepend|ignore|strip|bcc|delay|discard|pass|milter-[a-z]+): |^(?:table|removing|canonical|sender_|recipient_)`)

// qmgr reads a line of the queue manager.
func (p *postfix) qmgr(id, text string) error {
	if id == "" {
		return misread("no queue id")
	}
	k := [2]string{p.r.now.host, id}
	switch {
	case text == "removed":
		p.mails.drop(k)
		return nil
	case strings.HasPrefix(text, "from="):
		f := pairs(text)
		if isExpired(f["status"]) {
			p.expired(id, f)
			return nil
		}
		if f["size"] == "" && f["status"] == "" {
			return misread("no size")
		}
		p.queued(id, f)
		return nil
	case strings.HasPrefix(text, "to="):
		return p.attempt("qmgr", id, text)
	case strings.HasPrefix(text, "skipped"), strings.HasPrefix(text, "expired"):
		return nil
	}
	return misread("qmgr says something unknown")
}

func isExpired(status string) bool {
	word, _, _ := strings.Cut(status, ",")
	return word == "expired" || word == "force-expired"
}

// queued takes a message that is in the active queue: for the first time, if its begin
// is in the log, and else for the next attempt.
func (p *postfix) queued(id string, f map[string]string) {
	m := p.mail(id)
	m.message.Sender = unbracket(f["from"])
	if m.told || !m.begun {
		return
	}
	m.told = true
	m.message.Head = p.r.head("message")
	m.message.Size, m.message.Recipients = count(f["size"]), count(f["nrcpt"])
	e := m.message
	m.waiting = &e
}

// putOff returns the recipients of which the last attempt did not succeed yet.
func (m *mail) putOff() []string {
	var list []string
	for _, addr := range slices.Sorted(maps.Keys(m.rcpts)) {
		if m.rcpts[addr] == eventlog.Temp {
			list = append(list, addr)
		}
	}
	return list
}

// expired tells of the recipients that were last put off.
func (p *postfix) expired(id string, f map[string]string) {
	m := p.mail(id)
	p.flush(m)
	for _, addr := range m.putOff() {
		p.r.give(&eventlog.Result{
			Head:   p.r.head("expired " + addr),
			Party:  eventlog.Party{Session: m.message.Session, Message: id, Sender: unbracket(f["from"]), Address: addr},
			Result: eventlog.Expired, Text: f["status"],
		})
	}
}

// postsuper reads what an administrator did: -d removes messages.
func (p *postfix) postsuper(id, text string) error {
	if id == "" || text != "removed" {
		return nil
	}
	m, ok := p.mails.get([2]string{p.r.now.host, id})
	if !ok {
		return nil
	}
	p.flush(m)
	party := eventlog.Party{Session: m.message.Session, Message: id, Sender: m.message.Sender}
	for _, addr := range m.putOff() {
		party.Address = addr
		p.r.give(&eventlog.Result{Head: p.r.head("removed " + addr), Party: party, Result: eventlog.Removed})
	}
	if party.Address == "" { // not tried yet
		p.r.give(&eventlog.Result{Head: p.r.head("removed"), Party: party, Result: eventlog.Removed})
	}
	p.mails.drop(m.key)
	return nil
}

// bounce reads of reports: `sender non-delivery notification: QUEUEID`.
func (p *postfix) bounce(id, text string) error {
	what, other, ok := strings.Cut(text, " notification: ")
	if id == "" || !ok {
		return misread("no report")
	}
	if strings.HasPrefix(what, "postmaster") {
		return nil
	}
	m := p.mail(other)
	m.message.About = id
	if m.waiting != nil {
		m.waiting.About = id
	}
	return nil
}

// pairs splits key=value, key=value (comment). Values in brackets may have blanks and
// commas.
func pairs(text string) map[string]string {
	f := map[string]string{}
	for text != "" {
		key, rest, ok := strings.Cut(text, "=")
		if !ok || strings.Contains(key, " ") {
			return f
		}
		var value string
		if strings.HasPrefix(rest, "<") {
			end := strings.Index(rest, ">,")
			if end < 0 {
				end = strings.LastIndexByte(rest, '>')
			}
			if end < 0 {
				return f
			}
			value, rest = rest[:end+1], rest[end+1:]
		} else if key == "status" { // the rest, with the reply
			value, rest = rest, ""
		} else {
			end := strings.IndexAny(rest, ", ")
			if end < 0 {
				end = len(rest)
			}
			value, rest = rest[:end], rest[end:]
		}
		f[key] = value
		text = strings.TrimLeft(rest, ", ")
	}
	return f
}

func count(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64) // what is no number is not known
	return max(0, n)
}
