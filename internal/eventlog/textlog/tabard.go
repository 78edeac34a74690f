package textlog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// tabardLine reads a line of Tabard's own log: `TIME tabard/NAME[PID]: [LEVEL:]
// [SESSION] EVENT key=value ...`, or an object of JSON (log format json).
func (r *Reader) tabardLine(l *line) error {
	if strings.HasPrefix(l.text, "{") {
		return r.tabardObject(l)
	}
	if !strings.HasPrefix(l.program, "tabard/") {
		return misread("no line of Tabard")
	}
	s, err := tabardWords(l.text)
	if err != nil {
		return err
	}
	r.smtp.take(s, tabardMessage)
	return nil
}

// tabardMessage is the message of an envelope: MESSAGE.N.
func tabardMessage(envelope string) string {
	id, _, _ := strings.Cut(envelope, ".")
	return id
}

// tabardWords reads what follows the name of the process.
func tabardWords(text string) (*said, error) {
	for _, level := range []string{"debug: ", "warn: ", "error: "} {
		text = strings.TrimPrefix(text, level)
	}
	s := &said{attrs: map[string]string{}}
	first, rest, _ := strings.Cut(text, " ")
	if isHex(first, 16) {
		s.session, text = first, rest
	}
	var words []string
	for text != "" {
		word, rest, _ := strings.Cut(text, " ")
		key, value, ok := strings.Cut(word, "=")
		if !ok && len(s.attrs) == 0 {
			words = append(words, word)
			text = rest
			continue
		}
		if !ok || key == "" {
			return nil, misread("%q is no key=value", cutShort(word))
		}
		if value == "" || value[0] != '"' {
			s.attrs[key], text = value, rest
			continue
		}
		quoted, err := strconv.QuotedPrefix(text[len(key)+1:])
		if err != nil {
			return nil, misread("the quotes of %s do not end", cutShort(key))
		}
		if value, err = strconv.Unquote(quoted); err != nil {
			return nil, misread("%s: %v", cutShort(key), err)
		}
		s.attrs[key] = value
		rest = text[len(key)+1+len(quoted):]
		if rest != "" && rest[0] != ' ' {
			return nil, misread("no blank after %s", cutShort(key))
		}
		text = strings.TrimPrefix(rest, " ")
	}
	s.event = strings.Join(words, " ")
	if s.event == "" {
		return nil, misread("no event")
	}
	return s, nil
}

// tabardObject reads a line of the form json.
func (r *Reader) tabardObject(l *line) error {
	var fields map[string]any
	d := json.NewDecoder(strings.NewReader(l.text))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return misread("no JSON: %v", err)
	}
	text := func(key string) string {
		v, ok := fields[key]
		if !ok || v == nil {
			return ""
		}
		return fmt.Sprint(v)
	}
	at, err := time.Parse(time.RFC3339Nano, text("time"))
	if err != nil || text("msg") == "" || text("process") == "" {
		return misread("no line of Tabard: time, msg or process is missing")
	}
	l.at = at
	r.name(l, Tabard)
	s := &said{session: text("session"), event: text("msg"), attrs: map[string]string{}}
	for key := range fields {
		s.attrs[key] = text(key)
	}
	if n, err := strconv.ParseInt(s.attrs["delay"], 10, 64); err == nil { // nanoseconds
		s.attrs["delay"] = time.Duration(n).String()
	}
	r.smtp.take(s, tabardMessage)
	return nil
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// cutShort is text of a log in an error.
func cutShort(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
