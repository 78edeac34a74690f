package smtpd

import (
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/internal/config"
	"tabard/queue"
)

// wishes are what a client asks of the schedule, by parameters of MAIL: MT-PRIORITY
// (RFC 6710), HOLDFOR or HOLDUNTIL (RFC 4865) and BY (RFC 2852). go-smtp knows two of
// them, as parameters of RCPT, where the standards have none: so they are taken out of
// the command before go-smtp sees it.
type wishes struct {
	priority int
	ranked   bool // MT-PRIORITY was given
	lowered  bool // it was higher than the client may have
	release  time.Time
	by       queue.DeliverBy
}

// maxSeconds is the largest number of nine digits, which is what RFC 2852 and RFC 4865
// let parameters have.
const maxSeconds = 999_999_999

// takeWishes takes the parameters of wishes out of the argument of MAIL, and keeps what
// they say in s.wishes.
func (s *session) takeWishes(arg string) (rest string, e *smtp.SMTPError) {
	s.wishes = wishes{}
	path, params := cutPath(arg)
	if params == "" || !s.extended {
		return arg, nil
	}
	given := make(map[string]string)
	kept := []string{path}
	for _, word := range strings.Fields(params) {
		key, value, _ := strings.Cut(word, "=")
		switch key = strings.ToUpper(key); key {
		case "MT-PRIORITY", "HOLDFOR", "HOLDUNTIL", "BY":
			if _, twice := given[key]; twice {
				return "", malformed(key + " given twice")
			}
			given[key] = value
		default:
			kept = append(kept, word)
		}
	}
	if len(given) == 0 {
		return arg, nil
	}
	return strings.Join(kept, " "), s.wish(given, time.Now())
}

// wish reads parameters. By a wish to be released later, the time of BY begins then.
func (s *session) wish(given map[string]string, now time.Time) *smtp.SMTPError {
	w := &s.wishes
	if value, ok := given["MT-PRIORITY"]; ok {
		if e := s.wishPriority(value); e != nil {
			return e
		}
	}
	if e := s.wishRelease(given, now); e != nil {
		return e
	}
	value, ok := given["BY"]
	if !ok {
		return nil
	}
	if s.c.ln.NoDSN {
		return unsupportedWish("BY")
	}
	span, by, e := parseBy(value)
	if e != nil {
		return e
	}
	begin := now
	if w.release.After(now) {
		begin = w.release
	}
	w.by = by
	w.by.Time = begin.Add(span)
	return nil
}

// wishPriority reads MT-PRIORITY. Everybody may stand back; to be preferred is for
// those we know (RFC 6710 section 4.1 has a server lower what is not allowed).
func (s *session) wishPriority(value string) *smtp.SMTPError {
	digits := strings.TrimPrefix(value, "-")
	n, err := strconv.Atoi(value)
	if err != nil || len(digits) != 1 || value == "-0" || digits[0] < '0' || digits[0] > '9' {
		return malformed("MT-PRIORITY is not a number from -9 to 9")
	}
	highest := 0
	if s.trusted() {
		highest = s.srv.cfg.MaxPriority
	}
	w := &s.wishes
	w.priority, w.ranked, w.lowered = min(n, highest), true, n > highest
	return nil
}

// wishRelease reads HOLDFOR or HOLDUNTIL.
func (s *session) wishRelease(given map[string]string, now time.Time) *smtp.SMTPError {
	seconds, isFor := given["HOLDFOR"]
	date, isUntil := given["HOLDUNTIL"]
	most := s.srv.cfg.FutureRelease
	switch {
	case !isFor && !isUntil:
		return nil
	case !s.offersRelease():
		return unsupportedWish("HOLDFOR and HOLDUNTIL")
	case !s.trusted():
		return refuse(530, smtp.EnhancedCode{5, 7, 0}, "Must issue an AUTH command before mail can be held")
	case isFor && isUntil:
		return malformed("HOLDFOR and HOLDUNTIL given together")
	}
	at, err := time.Parse(time.RFC3339, strings.ToUpper(date))
	if isFor {
		n, ok := parseSeconds(seconds)
		if !ok {
			return malformed("HOLDFOR is not a number of seconds")
		}
		at, err = now.Add(time.Duration(n)*time.Second), nil
	}
	if err != nil {
		return malformed("HOLDUNTIL is not a date and time as 2027-01-31T12:00:00Z")
	}
	if at.After(now.Add(most)) {
		return malformed("Mail can be held for " + strconv.FormatInt(int64(most/time.Second), 10) + " seconds at most")
	}
	s.wishes.release = at
	return nil
}

// parseBy reads by-value of RFC 2852 section 4: by-time ";" by-mode [by-trace].
func parseBy(value string) (time.Duration, queue.DeliverBy, *smtp.SMTPError) {
	text, mode, _ := strings.Cut(strings.ToUpper(value), ";")
	sign := time.Duration(1)
	if strings.HasPrefix(text, "-") {
		sign = -1
	}
	n, ok := parseSeconds(strings.TrimPrefix(strings.TrimPrefix(text, "+"), "-"))
	by := queue.DeliverBy{Notify: strings.HasPrefix(mode, "N"), Trace: strings.HasSuffix(mode, "T")}
	switch bare := strings.TrimSuffix(mode, "T"); {
	case !ok || len(text) > 1 && !isDigit(text[0]) && !isDigit(text[1]), bare != "N" && bare != "R":
		return 0, by, malformed("BY is not seconds;R or seconds;N")
	case bare == "R" && (sign < 0 || n == 0):
		return 0, by, malformed("BY with mode R needs a time that is still to come")
	}
	return sign * time.Duration(n) * time.Second, by, nil
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// parseSeconds reads one to nine digits.
func parseSeconds(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil && n <= maxSeconds && len(s) <= 9
}

func malformed(text string) *smtp.SMTPError {
	return refuse(501, smtp.EnhancedCode{5, 5, 4}, text)
}

func unsupportedWish(what string) *smtp.SMTPError {
	return refuse(555, smtp.EnhancedCode{5, 5, 4}, what+" not supported here")
}

// trusted reports whether we know who submits mail.
func (s *session) trusted() bool { return s.user != "" || s.c.peer.socket }

// offersRelease reports whether mail may be held on this listener, by those who log in:
// RFC 4865 is for submission.
func (s *session) offersRelease() bool {
	ln := s.c.ln
	return s.srv.cfg.FutureRelease > 0 && (ln.Auth != config.AuthNone || ln.HasCertAuth || s.trusted())
}

// cutPath cuts the argument of MAIL behind its path, which may be quoted.
func cutPath(arg string) (path, params string) {
	quoted := false
	for i := 0; i < len(arg); i++ {
		switch {
		case arg[i] == '\\' && quoted:
			i++
		case arg[i] == '"':
			quoted = !quoted
		case arg[i] == '>' && !quoted:
			return arg[:i+1], strings.TrimSpace(arg[i+1:])
		}
	}
	return arg, ""
}

// wishLines are the EHLO lines of wishes.
func (s *session) wishLines(now time.Time) []string {
	lines := []string{"MT-PRIORITY"}
	if !s.c.ln.NoDSN {
		lines = append(lines, "DELIVERBY")
	}
	if s.offersRelease() {
		most := s.srv.cfg.FutureRelease
		lines = append(lines, "FUTURERELEASE "+strconv.FormatInt(int64(most/time.Second), 10)+" "+now.Add(most).UTC().Format(time.RFC3339))
	}
	return lines
}
