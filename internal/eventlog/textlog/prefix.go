package textlog

import (
	"strings"
	"time"
)

// line is a line of a log without what syslog puts before it.
type line struct {
	at      time.Time
	host    string // empty: the line names none
	program string // smtpd, postfix/smtpd, tabard/smtpd
	pid     string
	text    string
	format  Format // Auto: none that is known by its name
}

// clock reads times. Those of traditional syslog lines have no year.
type clock struct {
	zone   *time.Location
	latest time.Time // no line is later; zero: unknown
	year   int       // of the first line; 0: as latest wants it
	last   time.Time // of the line before, once year was used
}

// slack is how far a time may be after the latest one: zones and clocks differ.
const slack = 24 * time.Hour

// prefix takes a line apart.
func (c *clock) prefix(text string) (line, error) {
	if text[0] == '{' {
		return line{text: text, format: Tabard}, nil
	}
	text = stripPriority(text)
	at, rest, ok := c.time(text)
	if !ok {
		return line{}, misread("no time at its begin")
	}
	l := line{at: at}
	first, more, _ := strings.Cut(rest, " ")
	if strings.HasSuffix(first, ":") && strings.HasPrefix(first, "tabard/") {
		l.program, l.pid = programOf(first) // as Tabard writes to standard error
	} else {
		l.host = first
		first, more, _ = strings.Cut(strings.TrimLeft(more, " "), " ")
		if first == "last" && strings.HasPrefix(more, "message repeated ") || first == "--" {
			return line{}, errOther // syslogd itself, also -- MARK --
		}
		if !strings.HasSuffix(first, ":") {
			return line{}, misread("no host and program after the time")
		}
		l.program, l.pid = programOf(first)
	}
	l.text = strings.TrimSpace(more)
	return c.classify(l), nil
}

// classify finds out whose line it is.
func (c *clock) classify(l line) line {
	first, _, slash := strings.Cut(l.program, "/")
	switch {
	case first == "tabard" && slash:
		l.format = Tabard
	case l.program == "tabard": // what syslog or the journal made of standard error
		if at, rest, ok := c.time(l.text); ok && strings.HasPrefix(rest, "tabard/") {
			name, more, _ := strings.Cut(rest, " ")
			l.at, l.text = at, more
			l.program, l.pid = programOf(name)
		} else if strings.HasPrefix(l.text, "{") {
			l.program = ""
		}
		l.format = Tabard
	case l.program == "smtpd", l.program == "opensmtpd":
		l.format = OpenSMTPD
	case strings.HasPrefix(first, "postfix"):
		l.format = Postfix
	}
	return l
}

// programOf splits name[pid]:
func programOf(s string) (name, pid string) {
	name, pid, _ = strings.Cut(strings.TrimSuffix(s, ":"), "[")
	return name, strings.TrimSuffix(pid, "]")
}

// stripPriority takes off the <PRI> of a line as syslog sends it.
func stripPriority(s string) string {
	if s[0] != '<' {
		return s
	}
	n := strings.IndexByte(s, '>')
	if n < 2 || n > 4 || strings.Trim(s[1:n], "0123456789") != "" {
		return s
	}
	return s[n+1:]
}

const traditional = "Jan _2 15:04:05"

// time reads the time at the beginning of a line, and returns what follows it.
func (c *clock) time(s string) (at time.Time, rest string, ok bool) {
	if len(s) > 0 && s[0] >= '0' && s[0] <= '9' {
		word, rest, _ := strings.Cut(s, " ")
		for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700"} {
			if t, err := time.Parse(form, word); err == nil {
				return t, rest, true
			}
		}
		return at, "", false
	}
	if len(s) <= len(traditional) || s[len(traditional)] != ' ' {
		return at, "", false
	}
	// 2000 was a leap year: every day of a year can be read.
	t, err := time.Parse("2006 "+traditional, "2000 "+s[:len(traditional)])
	if err != nil {
		return at, "", false
	}
	return c.dated(t), strings.TrimLeft(s[len(traditional):], " "), true
}

// dated gives a time its year: the last one in which it is not later than it may be, or,
// from a given year on, the one that keeps it nearest to the line before.
func (c *clock) dated(t time.Time) time.Time {
	in := func(year int) (time.Time, bool) {
		d := time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, c.zone)
		return d, d.Day() == t.Day()
	}
	if c.year == 0 {
		latest := c.latest
		if latest.IsZero() {
			latest = time.Now()
		}
		for year := latest.In(c.zone).Year() + 1; ; year-- {
			if d, ok := in(year); ok && !d.After(latest.Add(slack)) {
				return d
			}
		}
	}
	best, _ := in(c.year)
	if !c.last.IsZero() {
		for _, year := range []int{c.last.Year() - 1, c.last.Year(), c.last.Year() + 1} {
			if d, ok := in(year); ok && d.Sub(c.last).Abs() < best.Sub(c.last).Abs() {
				best = d
			}
		}
	}
	c.last = best
	return best
}
