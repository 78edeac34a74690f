package textlog

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"tabard/internal/eventlog"
)

// said is a line in OpenSMTPD's words: `SESSION smtp message msgid=... size=...`.
type said struct {
	session string
	event   string // smtp message
	attrs   map[string]string
}

func (s *said) number(key string) int64 {
	n, _ := strconv.ParseInt(s.attrs[key], 10, 64) // what is no number is not known
	return max(0, n)
}

// path is an address without the brackets around it.
func (s *said) path(key string) string {
	v := strings.TrimSuffix(strings.TrimPrefix(s.attrs[key], "<"), ">")
	if v == "-" {
		return ""
	}
	return v
}

// Bounds of what is remembered.
const (
	maxTalks   = 20_000
	maxReports = 10_000
)

// dialect makes events of OpenSMTPD's words, which Tabard's log has as well.
type dialect struct {
	r       *Reader
	talks   *recent[[2]string, *talk]    // by host and id of the session
	reports *recent[[2]string, struct{}] // bounces that a message was made of
}

// talk is an SMTP session that goes on.
type talk struct {
	session  eventlog.Session
	message  *eventlog.Message // that waits for its sender
	messages int64
	refused  string // user of a login that failed, until its command is told of
}

func newDialect(r *Reader) *dialect {
	d := &dialect{r: r, reports: newRecent[[2]string, struct{}](maxReports, nil)}
	d.talks = newRecent[[2]string](maxTalks, func(t *talk) { d.flush(t) })
	return d
}

func (d *dialect) finish() { d.talks.clear() }

// flush gives a message, of which no more will be said.
func (d *dialect) flush(t *talk) {
	if t.message != nil {
		d.r.give(t.message)
		t.message = nil
	}
}

// talk returns the session of a line.
func (d *dialect) talk(s *said) *talk {
	k := [2]string{d.r.now.host, s.session}
	t, ok := d.talks.get(k)
	if !ok {
		t = &talk{session: eventlog.Session{ID: s.session, Began: d.r.now.at}}
		d.talks.put(k, t)
	}
	return t
}

// take makes events of what is said. Of most it is only remembered.
func (d *dialect) take(s *said, idOf func(envelope string) (message string)) {
	switch s.event {
	case "smtp connected", "mta connecting":
		d.begin(s)
	case "smtp tls", "mta tls":
		d.talk(s).session.TLS = s.attrs["ciphers"]
	case "smtp cert-check", "mta cert-check", "mta server-cert-check":
		d.verdict(s)
	case "smtp authentication":
		if t := d.talk(s); s.attrs["result"] == "ok" {
			t.session.Login = s.attrs["user"]
		} else {
			t.refused = s.attrs["user"]
		}
	case "smtp failed-command":
		d.refused(s)
	case "smtp message":
		d.message(s)
	case "smtp envelope":
		d.envelope(s, idOf)
	case "mta error":
		d.talk(s).session.Reason = s.attrs["reason"]
	case "smtp disconnected", "mta disconnected":
		d.end(s)
	case "mta delivery", "mda delivery":
		d.delivery(s, idOf)
	case "queue bounce", "queue drop", "queue expire", "queue remove":
		d.ended(s, idOf)
	}
}

func (d *dialect) begin(s *said) {
	d.talks.drop([2]string{d.r.now.host, s.session})
	e := &d.talk(s).session
	e.Name = unbracket(s.attrs["host"])
	e.Direction, e.Peer = eventlog.In, s.attrs["address"]
	if s.event == "mta connecting" {
		e.Direction = eventlog.Out
		if _, after, ok := strings.Cut(e.Peer, "://"); ok {
			e.Peer = after
		}
		e.Peer = withoutPort(e.Peer)
	}
}

func (d *dialect) verdict(s *said) {
	e := &d.talk(s).session
	switch v := s.attrs["result"]; v {
	case "verified", "valid", "success":
		e.Verdict = "verified"
	case "failed", "unchecked":
		e.Verdict = v
	case "failure":
		e.Verdict = "failed"
	case "unverified":
		e.Verdict = "unchecked"
	}
	e.Identity = cmp.Or(s.attrs["identity"], s.attrs["reason"])
}

// refused tells of a refused MAIL, RCPT or message, as smtpd does.
func (d *dialect) refused(s *said) {
	verb, arg, _ := strings.Cut(s.attrs["command"], " ")
	e := &eventlog.Result{Head: d.r.head("rejected"), Result: eventlog.Rejected}
	e.Session = s.session
	e.Code, e.Status, e.Text = splitReply(s.attrs["result"])
	switch strings.ToUpper(verb) {
	case "MAIL":
		e.Sender = pathIn(arg)
	case "RCPT":
		e.Address = pathIn(arg)
	case "DATA", "BDAT":
	case "AUTH":
		if t := d.talk(s); t.refused != "" {
			e.Text += ": " + t.refused
			t.refused = ""
		}
	default:
		return
	}
	d.r.give(e)
}

func (d *dialect) message(s *said) {
	t := d.talk(s)
	d.flush(t)
	t.messages++
	t.message = &eventlog.Message{
		Head: d.r.head("message"), ID: s.attrs["msgid"], Session: s.session, Size: s.number("size"),
		Recipients: max(s.number("nrcpt"), s.number("ndest")), Protocol: s.attrs["proto"],
		Login: t.session.Login, Peer: cmp.Or(t.session.Peer, s.attrs["address"]),
	}
	if _, ok := s.attrs["from"]; ok { // until OpenSMTPD 6.3
		t.message.Sender = s.path("from")
		d.flush(t)
	}
}

func (d *dialect) envelope(s *said, idOf func(string) string) {
	e := &eventlog.Envelope{Head: d.r.head("envelope"), Party: partyOf(s, idOf)}
	e.Session = s.session
	if t := d.talk(s); t.message != nil && t.message.ID == e.Message {
		t.message.Sender = e.Sender
		d.flush(t)
	}
	d.r.give(e)
}

func partyOf(s *said, idOf func(string) string) eventlog.Party {
	p := eventlog.Party{Envelope: s.attrs["evpid"], Sender: s.path("from"), Recipient: s.path("rcpt"), Address: s.path("to")}
	if p.Recipient == p.Address {
		p.Recipient = ""
	}
	if p.Envelope != "" {
		p.Message = idOf(p.Envelope)
	}
	return p
}

func (d *dialect) end(s *said) {
	t := d.talk(s)
	e := t.session
	e.Head = d.r.head("session")
	if e.Direction == "" { // its begin is not in the log
		e.Direction = eventlog.In
		if s.event == "mta disconnected" {
			e.Direction = eventlog.Out
		}
	}
	if e.Messages = t.messages; e.Direction == eventlog.Out {
		e.Messages = s.number("messages")
	}
	if reason := s.attrs["reason"]; reason != "error" || e.Reason == "" {
		e.Reason = reason
	}
	d.talks.drop([2]string{d.r.now.host, s.session})
	d.r.give(&e)
}

func (d *dialect) delivery(s *said, idOf func(string) string) {
	var outcome string
	switch s.attrs["result"] {
	case "Ok":
		outcome = eventlog.OK
	case "TempFail":
		outcome = eventlog.Temp
	case "PermFail":
		outcome = eventlog.Perm
	default:
		return // Returned and Paused: there was no attempt
	}
	p := partyOf(s, idOf)
	a := &eventlog.Attempt{Head: d.r.head("attempt"), Party: p, Outcome: outcome, Source: s.attrs["source"]}
	end := eventlog.Delivered
	if s.event == "mta delivery" {
		end = eventlog.Relayed
		a.Session = s.session
		if addr, name, ok := strings.Cut(s.attrs["relay"], " ("); ok {
			a.Peer, a.Host = addr, strings.TrimSuffix(name, ")")
		} else {
			a.Host = addr
		}
		a.TLSHad, a.TLSWanted, a.TLSBy = known(s.attrs["tls"]), known(s.attrs["wanted"]), known(s.attrs["by"])
	}
	a.Code, a.Status, a.Text = splitReply(s.attrs["stat"])
	a.DelayMS = span(s.attrs["delay"]).Milliseconds()
	d.r.give(a)
	if outcome == eventlog.Temp {
		return
	}
	if outcome == eventlog.Perm {
		end = eventlog.Failed
	}
	d.r.give(&eventlog.Result{Head: d.r.head("result"), Party: p, Result: end, Code: a.Code, Status: a.Status, Text: a.Text, DelayMS: a.DelayMS})
}

// ended tells of the end of an envelope of which its last attempt does not tell, and of
// the report about it.
func (d *dialect) ended(s *said, idOf func(string) string) {
	p := partyOf(s, idOf)
	p.Session = s.session
	if id := s.attrs["bounce"]; id != "" {
		k := [2]string{d.r.now.host, id}
		if _, ok := d.reports.get(k); !ok {
			d.reports.put(k, struct{}{})
			d.r.give(&eventlog.Message{Head: d.r.head("report"), ID: id, Recipients: 1, About: p.Message})
		}
	}
	e := &eventlog.Result{Head: d.r.head("result"), Party: p, DelayMS: span(s.attrs["delay"]).Milliseconds()}
	e.Code, e.Status, e.Text = splitReply(s.attrs["stat"])
	switch {
	case s.event == "queue remove":
		e.Result, e.Text = eventlog.Removed, cmp.Or(e.Text, s.attrs["reason"])
	case strings.Contains(s.attrs["stat"], "delivery time expired"), s.event == "queue expire":
		e.Result = eventlog.Expired
	case s.event == "queue bounce" && s.attrs["kind"] == "" && s.attrs["bounce"] == "": // by hand
		e.Result, e.Text = eventlog.Failed, cmp.Or(e.Text, s.attrs["reason"])
	default:
		return // its last attempt told
	}
	d.r.give(e)
}

// known is a word that is not the dash of an unknown one.
func known(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

func unbracket(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">") }

// withoutPort takes the port off an address: 192.0.2.1:25, [2001:db8::1]:25.
func withoutPort(s string) string {
	if inner, _, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok {
		return strings.TrimPrefix(inner, "IPv6:")
	}
	if host, _, ok := strings.Cut(s, ":"); ok && strings.Count(s, ":") == 1 {
		return host
	}
	return s
}

// pathIn is the address in the argument of a command: FROM:<a@example.org> SIZE=1.
func pathIn(arg string) string {
	_, arg, _ = strings.Cut(arg, ":")
	arg = strings.TrimSpace(arg)
	if inner, ok := strings.CutPrefix(arg, "<"); ok {
		arg, _, _ = strings.Cut(inner, ">")
		return arg
	}
	arg, _, _ = strings.Cut(arg, " ")
	return arg
}

// splitReply takes the codes off a reply: 250 2.0.0 Ok. Either may be missing.
func splitReply(s string) (code int64, status, text string) {
	first, rest, _ := strings.Cut(s, " ")
	if n, tail, ok := strings.Cut(first, "-"); ok && len(n) == 3 { // 550-5.7.1
		first, rest = n, tail+" "+rest
	}
	if len(first) == 3 && first[0] >= '2' && first[0] <= '5' {
		if n, err := strconv.ParseUint(first, 10, 10); err == nil {
			code, s = int64(n), rest //nolint:gosec // three digits
		}
	}
	first, rest, _ = strings.Cut(s, " ")
	if isStatus(first) {
		return code, first, rest
	}
	return code, "", s
}

// isStatus reports whether a word is an enhanced status code (RFC 3463).
func isStatus(s string) bool {
	return len(s) >= 5 && len(s) <= 9 && s[1] == '.' && (s[0] == '2' || s[0] == '4' || s[0] == '5') &&
		strings.Count(s, ".") == 2 && strings.Trim(s, "0123456789.") == "" && s[len(s)-1] != '.'
}

// span reads a duration as OpenSMTPD writes it: 1d2h3m4s.
func span(s string) time.Duration {
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest != "" {
		more, err := time.ParseDuration(rest)
		if err != nil || more < 0 || more > 10*365*24*time.Hour {
			return d
		}
		d += more
	}
	return d
}
