package proc

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"tabard/table"
)

// protocolVersion is that of OpenSMTPD 7.6 and later.
const protocolVersion = "0.1"

// op is what a request asks for.
type op string

const (
	opCheck  op = "check"
	opLookup op = "lookup"
	opFetch  op = "fetch"
)

// request formats one line. The key is the last field, so that it may hold bars;
// line ends never get here (table.NormalKey).
func (o op) request(name string, at time.Time, s table.Service, id, key string) string {
	head := fmt.Sprintf("table|%s|%d.%06d|%s|%s|%s|%s", protocolVersion, at.Unix(), at.Nanosecond()/1000, name, o, s, id)
	if o == opFetch {
		return head + "\n"
	}
	return head + "|" + key + "\n"
}

// errProtocol is wrapped by everything that a program should not have said. It
// ends the program: what else it says cannot be trusted to be in step.
var errProtocol = errors.New("the program broke the protocol")

// reply is one answer of a program.
type reply struct {
	kind  op
	id    string
	found bool
	value string // of a lookup or fetch that found something
	err   error  // the program could not answer
}

// parseReply reads an answer.
func parseReply(line string) (reply, error) {
	if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
		return reply{}, fmt.Errorf("%w: a line that is not UTF-8 text", errProtocol)
	}
	word, rest, _ := strings.Cut(line, "|")
	kind, isResult := strings.CutSuffix(word, "-result")
	r := reply{kind: op(kind)}
	if !isResult || r.kind != opCheck && r.kind != opLookup && r.kind != opFetch {
		return reply{}, fmt.Errorf("%w: unexpected line %.80q", errProtocol, line)
	}
	var status string
	var more bool
	r.id, rest, _ = strings.Cut(rest, "|")
	status, rest, more = strings.Cut(rest, "|")
	switch {
	case status == "found" && r.kind == opCheck && !more:
		r.found = true
	case status == "found" && r.kind != opCheck && rest != "":
		r.found, r.value = true, rest
	case status == "not-found" && !more:
	case status == "error":
		r.err = programError(rest)
	default:
		return reply{}, fmt.Errorf("%w: bad answer %.80q", errProtocol, line)
	}
	return r, nil
}

func programError(text string) error {
	if text == "" {
		return errors.New("the program reports an error")
	}
	return fmt.Errorf("the program reports an error: %.200q", text)
}

// answers reports whether a reply fits a request. The framework that OpenSMTPD's
// manual led to answers fetches as lookups, and errors as it likes.
func (r reply) answers(o op) bool {
	return r.kind == o || r.err != nil || o == opFetch && r.kind == opLookup
}

// registration is what a program says it can do.
type registration struct {
	services map[table.Service]bool
	changed  bool // it tells of changes, a word of our own
	unknown  []string
}

// add reads one line of the handshake; done reports its end.
func (g *registration) add(line string) (done bool, err error) {
	word, name, ok := strings.Cut(line, "|")
	if !ok || word != "register" {
		return false, fmt.Errorf("%w: %.80q where it should register", errProtocol, line)
	}
	switch name {
	case "ready":
		if len(g.services) == 0 {
			return false, fmt.Errorf("%w: it registers no service", errProtocol)
		}
		return true, nil
	case "changed":
		g.changed = true
		return false, nil
	}
	s, err := table.ParseService(name)
	if err != nil {
		g.unknown = append(g.unknown, name)
		return false, nil
	}
	g.services[s] = true
	return false, nil
}

// parseChange reads "changed", "changed|SERVICE" or "changed|SERVICE|KEY".
func parseChange(line string) (table.Change, bool) {
	fields := strings.SplitN(line, "|", 3)
	if fields[0] != "changed" {
		return table.Change{}, false
	}
	var c table.Change
	if len(fields) > 1 {
		s, err := table.ParseService(fields[1])
		if err != nil {
			return table.Change{}, true // whatever it means, something changed
		}
		c.Service = s
	}
	if len(fields) > 2 {
		c.Key = fields[2]
	}
	return c, true
}
