package mta

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"tabard/internal/address"
)

// Bounds on what a server may say. RFC 5321 section 4.5.3.1.5 asks for 512
// octets a line; real servers exceed it.
const (
	maxReplyLine = 2000
	maxReply     = 64 << 10
)

var (
	errBadReply    = errors.New("malformed reply")
	errLongReply   = errors.New("reply too long")
	errUnsolicited = errors.New("the server spoke without being asked")
)

// reply is what a server answered to one command.
type reply struct {
	code  int
	lines []string // fit to print, without code; at least one
}

// readReply reads one reply (RFC 5321 section 4.2). It is the only reader of
// what servers send.
func readReply(in *bufio.Reader) (reply, error) {
	var r reply
	for size := 0; ; {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return reply{}, errLongReply
		}
		if err != nil {
			return reply{}, err
		}
		if size += len(line); size > maxReply {
			return reply{}, errLongReply
		}
		code, text, more, err := parseReplyLine(line)
		if err != nil {
			return reply{}, err
		}
		if r.code != 0 && r.code != code {
			return reply{}, fmt.Errorf("%w: code changes from %d to %d", errBadReply, r.code, code)
		}
		r.code = code
		r.lines = append(r.lines, text)
		if !more {
			return r, nil
		}
	}
}

// parseReplyLine splits a line with its line end. A code alone is a whole
// reply, as the RFC asks clients to allow.
func parseReplyLine(line []byte) (code int, text string, more bool, err error) {
	s := strings.TrimRight(string(line), "\r\n")
	if len(s) < 3 || s[0] < '2' || s[0] > '5' || s[1] < '0' || s[1] > '9' || s[2] < '0' || s[2] > '9' ||
		len(s) > 3 && s[3] != ' ' && s[3] != '-' {
		return 0, "", false, fmt.Errorf("%w: %q", errBadReply, address.OneLine(s, 60))
	}
	code, _ = strconv.Atoi(s[:3])
	if len(s) > 3 {
		more = s[3] == '-'
		text = address.OneLine(s[4:], len(s)+8)
	}
	return code, text, more, nil
}

func (r reply) ok() bool { return r.code/100 == 2 }

func (r reply) permanent() bool { return r.code/100 == 5 }

// enhanced returns the enhanced status code (RFC 2034), or "" if there is none
// or one of another class than the reply's.
func (r reply) enhanced() string {
	if len(r.lines) == 0 {
		return ""
	}
	word, _, _ := strings.Cut(r.lines[len(r.lines)-1], " ")
	if !isEnhanced(word) || int(word[0]-'0') != r.code/100 {
		return ""
	}
	return word
}

func isEnhanced(s string) bool {
	if len(s) < 5 || len(s) > 9 || s[1] != '.' {
		return false
	}
	class, rest, _ := strings.Cut(s, ".")
	subject, detail, ok := strings.Cut(rest, ".")
	return ok && len(class) == 1 && isNumber(subject) && isNumber(detail)
}

func isNumber(s string) bool {
	return 1 <= len(s) && len(s) <= 3 && strings.Trim(s, "0123456789") == ""
}

// text returns all lines without codes, separated by line feeds.
func (r reply) text() string {
	prefix := r.enhanced()
	lines := make([]string, len(r.lines))
	for i, line := range r.lines {
		rest, cut := strings.CutPrefix(line, prefix)
		if cut && prefix != "" && (rest == "" || rest[0] == ' ') {
			line = strings.TrimPrefix(rest, " ")
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

// String returns the reply on one line.
func (r reply) String() string {
	return strings.TrimSpace(strconv.Itoa(r.code) + " " + strings.Join(r.lines, " "))
}
