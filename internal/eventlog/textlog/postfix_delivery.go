package textlog

import (
	"regexp"
	"strings"
	"time"

	"tabard/internal/eventlog"
)

// delivery reads the lines of a program that delivers.
func (p *postfix) delivery(name string) func(id, text string) error {
	return func(id, text string) error {
		if strings.HasPrefix(text, "to=") && id != "" {
			return p.attempt(name, id, text)
		}
		if m := smtpdTLS.FindStringSubmatch(text); m != nil {
			s := p.peer()
			s.at = m[2]
			switch s.tls = "encrypt"; m[1] {
			case "Verified":
				s.tls = "verify"
			}
			return nil
		}
		if id != "" || deliveryOther.MatchString(text) {
			return nil // what led to the line with the status, which says it again
		}
		return misread("%s says something unknown", name)
	}
}

// deliveryOther is what is said of servers, outside of a message.
var deliveryOther = regexp.MustCompile(`^(?:connect to |certificate verification|server certificate|SSL_connect|\S+\[[^\]]*\](?::\d+)?:|` +
	`host |Host |lost connection|conversation with |network |no IP |Name service|verification |hostname |smtp_|lmtp_|TLSA |DANE |TLS )`)

// attempt reads `to=<>, orig_to=<>, relay=NAME[ADDRESS]:PORT, delay=, delays=a/b/c/d,
// dsn=, status=sent (250 ...)`.
func (p *postfix) attempt(program, id, text string) error {
	f := pairs(text)
	word, said, _ := strings.Cut(f["status"], " ")
	said = strings.TrimSuffix(strings.TrimPrefix(said, "("), ")")
	var outcome string
	switch word {
	case "sent":
		outcome = eventlog.OK
	case "deferred", "SOFTBOUNCE":
		outcome = eventlog.Temp
	case "bounced":
		outcome = eventlog.Perm
	case "expired", "force-expired":
		outcome = eventlog.Perm
	case "deliverable", "undeliverable", "filtered":
		return nil // of a probe (verify), which is no mail
	default:
		return misread("status=%s is unknown", cutShort(word))
	}
	m := p.mail(id)
	p.flush(m)
	party := eventlog.Party{Message: id, Sender: m.message.Sender, Address: unbracket(f["to"]), Recipient: unbracket(f["orig_to"])}
	p.recipient(m, party, program, outcome)
	a := &eventlog.Attempt{Head: p.r.head("attempt"), Party: party, Action: program, Outcome: outcome, Status: f["dsn"]}
	a.DelayMS = seconds(f["delay"])
	if parts := strings.Split(f["delays"], "/"); len(parts) == 4 { // waiting, in qmgr, connecting, sending
		a.DurationMS = seconds(parts[2]) + seconds(parts[3])
	}
	relay := f["relay"]
	if relay != "" && relay != "none" {
		if a.Host, a.Peer = client(relay); a.Host == "" {
			a.Host = relay
		}
		if s := p.peer(); s.at != "" && s.at == relay {
			a.TLSHad = s.tls
		}
	}
	a.Text = said
	if m := serverSaid.FindStringSubmatch(said); m != nil {
		a.Text = m[1]
	}
	code, status, rest := splitReply(a.Text)
	if a.Code = code; code != 0 {
		a.Text = rest
	}
	if status != "" {
		a.Text = rest
		if a.Status == "" {
			a.Status = status
		}
	}
	p.r.give(a)
	if outcome != eventlog.Temp {
		party.Session = m.message.Session
		p.r.give(&eventlog.Result{Head: p.r.head("result"), Party: party, Result: ending(program, word), Code: a.Code, Status: a.Status, Text: a.Text, DelayMS: a.DelayMS})
	}
	return nil
}

// serverSaid finds the reply in `host NAME[ADDRESS] said: 550 ... (in reply to RCPT TO
// command)`.
var serverSaid = regexp.MustCompile(`^host \S+ (?:said|refused to talk to me): ([245]\d\d[ -].*?)(?: \(in reply to [^()]*\))?$`)

// ending is the end of an envelope by the program and the word for its status.
func ending(program, word string) string {
	switch {
	case word == "bounced":
		return eventlog.Failed
	case word != "sent":
		return eventlog.Expired
	case program == "smtp", program == "relay", program == "dane":
		return eventlog.Relayed
	}
	return eventlog.Delivered
}

// recipient tells of an envelope when it is first tried, of a message whose begin is in
// the log, and keeps what came of the attempt.
func (p *postfix) recipient(m *mail, party eventlog.Party, program, outcome string) {
	if m.rcpts == nil {
		m.rcpts = map[string]string{}
	}
	_, known := m.rcpts[party.Address]
	m.rcpts[party.Address] = outcome
	if known {
		return
	}
	if m.begun && m.told {
		e := &eventlog.Envelope{Head: p.r.head("envelope"), Party: party, Action: program}
		e.Session = m.message.Session
		p.r.give(e)
	}
	p.mails.grow(m.key)
}

// seconds reads 1.25 as milliseconds.
func seconds(s string) int64 {
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return 0
	}
	d, err := time.ParseDuration(s + "s")
	if err != nil {
		return 0
	}
	return d.Milliseconds()
}
