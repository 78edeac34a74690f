package textlog

import (
	"regexp"
	"strings"
)

// opensmtpdLine reads a line of OpenSMTPD's smtpd: `SESSION smtp|mta|mda EVENT
// key=value ...`, or what it says of anything else.
func (r *Reader) opensmtpdLine(l *line) error {
	first, rest, _ := strings.Cut(l.text, " ")
	if isHex(first, 16) {
		s, err := opensmtpdWords(first, rest)
		if err != nil {
			return err
		}
		r.smtp.take(s, opensmtpdMessage)
		return nil
	}
	if m := opensmtpdEnd.FindStringSubmatch(l.text); m != nil {
		s := &said{attrs: opensmtpdPairs(strings.ReplaceAll(m[3], ", ", " ")), event: "queue expire"}
		if m[1] == "Remove" {
			s.event = "queue remove"
		}
		s.attrs["evpid"] = m[2]
		r.smtp.take(s, opensmtpdMessage)
		return nil
	}
	if opensmtpdOther.MatchString(l.text) {
		return nil
	}
	return misread("no line of OpenSMTPD")
}

// opensmtpdEnd is the end of an envelope that is not delivered.
var opensmtpdEnd = regexp.MustCompile(`^(?:relay|delivery|mda|mta|scheduler|queue): (Expire|Remove) for ([0-9a-f]{16}): (.*)$`)

// opensmtpdOther is what is not about one piece of mail: `warn: ...`, `smtp-out: ...`,
// `pony express: ...`.
var opensmtpdOther = regexp.MustCompile(`^(?:[a-z][a-z0-9 _-]{0,40}: |OpenSMTPD |Exiting|startup)`)

// opensmtpdMessage is the message of an envelope: the first half of it.
func opensmtpdMessage(envelope string) string { return envelope[:min(len(envelope), 8)] }

// opensmtpdWords reads what follows the session. Until version 6.3 it is `smtp
// event=message ...`.
func opensmtpdWords(session, text string) (*said, error) {
	who, rest, _ := strings.Cut(text, " ")
	if who != "smtp" && who != "mta" && who != "mda" && who != "filter" {
		return nil, misread("nothing that smtp, mta or mda say")
	}
	s := &said{session: session, attrs: map[string]string{}}
	event, rest, _ := strings.Cut(rest, " ")
	if old, ok := strings.CutPrefix(event, "event="); ok {
		event = old
		if event == "closed" {
			event = "disconnected"
		}
	}
	if event == "" || strings.Contains(event, "=") {
		return nil, misread("%s says nothing", who)
	}
	s.event, s.attrs = who+" "+event, opensmtpdPairs(rest)
	return s, nil
}

// opensmtpdKey begins a value. Values are not always in quotes, nor are quotes in them
// escaped: they end where the next key begins. What a server or a client said comes
// last (stat, reason, result) and ends with the line.
var opensmtpdKey = regexp.MustCompile(`(?:^| )([a-z][a-z-]*)=`)

func opensmtpdPairs(text string) map[string]string {
	attrs := map[string]string{}
	for text != "" {
		m := opensmtpdKey.FindStringSubmatchIndex(text)
		if m == nil {
			return attrs
		}
		key, value := text[m[2]:m[3]], text[m[1]:]
		text = ""
		if key == "command" {
			if i := strings.LastIndex(value, `" result=`); i >= 0 {
				value, text = value[:i+1], value[i+1:]
			}
		} else if key != "stat" && key != "reason" {
			from := 0
			if strings.HasPrefix(value, `"`) {
				from = 1 + max(0, strings.IndexByte(value[1:], '"'))
			}
			if next := opensmtpdKey.FindStringIndex(value[from:]); next != nil {
				value, text = value[:from+next[0]], value[from+next[0]:]
			}
		} else if key == "reason" {
			if i := strings.LastIndex(value, " messages="); i >= 0 {
				value, text = value[:i], value[i:]
			}
		}
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		attrs[key] = value
	}
	return attrs
}
