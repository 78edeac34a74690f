package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/eventdb"
)

// word is what an argument of `tabard log` is taken for.
type word int

const (
	wordText word = iota
	wordAddress
	wordDomain
	wordID
	perhapsDomain // if the log has mail from or to it, else a text
	perhapsID     // if the log knows it, else a text
	perhapsHeader // a Message-ID, if the log knows it, else an address
)

// The forms of ids. A short id of Postfix is microseconds and a file's number in
// hexadecimal digits, a long one both and the seconds in digits that are no vowels, z
// between. A message of OpenSMTPD has 8 hexadecimal digits, its envelopes have 16.
var (
	idForm      = regexp.MustCompile(`^(?:[0-9a-fA-F]{16}(?:\.[0-9]+)?|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10}z[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-y]+)$`)
	shortIDForm = regexp.MustCompile(`^(?:[0-9A-F]{5,20}|[0-9a-f]{8})$`)
	headerForm  = regexp.MustCompile(`^<[^<>\s]+@[^<>\s]+>$`)
	domainForm  = regexp.MustCompile(`^[^\s@:/\[\]<>()"=]+\.[^\s@:/\[\]<>()"=.]{2,}$`)
)

// wordOf says what an argument looks like, and returns it without what the log or
// mailq puts around it.
func wordOf(arg string) (word, string) {
	bare := strings.TrimRight(arg, ":*!") // ID: of a log; ID* and ID! of mailq
	_, err := netip.ParseAddr(arg)
	switch {
	case idForm.MatchString(bare):
		return wordID, bare
	case arg[0] == '@' && !strings.ContainsAny(arg, " \t"):
		return wordDomain, arg[1:]
	case arg == eventdb.NullSender:
		return wordAddress, arg
	case headerForm.MatchString(arg):
		return perhapsHeader, strings.Trim(arg, "<>")
	case strings.Contains(arg, "@") && !strings.ContainsAny(arg, " \t"):
		return wordAddress, arg
	case shortIDForm.MatchString(bare):
		return perhapsID, bare
	case err != nil && domainForm.MatchString(arg):
		return perhapsDomain, arg
	}
	return wordText, arg
}

// narrow takes an argument for what it looks like. What may be a text as well waits for
// the log to decide.
func (c *logCommand) narrow(arg string) error {
	if arg == "" {
		return errors.New("an empty argument says nothing")
	}
	w, bare := wordOf(arg)
	if w >= perhapsDomain {
		c.open = append(c.open, arg)
		return nil
	}
	return c.restrict(w, bare)
}

// emptyFlag reports a flag that was given and says nothing: a script whose variable is empty
// is not to be answered with everything.
func emptyFlag(cmd *cobra.Command) error {
	for _, name := range []string{"address", "domain", "id", "kind", "result", "since", "text", "trace", "until"} {
		if f := cmd.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), "[] ") == "" {
			return fmt.Errorf("--%s is empty, and says nothing", name)
		}
	}
	return nil
}

// restrict makes a word part of the query.
func (c *logCommand) restrict(w word, arg string) error {
	to, what := &c.query.Text, "text"
	switch w {
	case wordID:
		to, what = &c.query.ID, "id"
	case wordDomain:
		to, what = &c.query.Domain, "domain"
	case wordAddress:
		to, what = &c.query.Address, "address"
	}
	if *to != "" {
		return exitf(exUsage, "%s and %s: there can be one %s only", *to, arg, what)
	}
	*to = arg
	return nil
}

// decide asks the log what arguments mean that have the form of an id or a domain, as
// texts may have, too.
func (c *logCommand) decide(ctx context.Context, db *eventdb.DB) error {
	for _, arg := range c.open {
		w, bare := wordOf(arg)
		as, other, knows := wordID, wordText, db.KnowsID
		switch w {
		case perhapsDomain:
			as, knows = wordDomain, db.KnowsDomain
		case perhapsHeader:
			other = wordAddress
		}
		known, err := knows(ctx, bare)
		if err != nil {
			return err
		}
		if !known {
			as = other
		}
		if as == wordText {
			bare = arg
		}
		if err := c.restrict(as, bare); err != nil {
			return err
		}
	}
	return nil
}

// whenForms are those of times that name a day.
func whenForms() []string {
	return []string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"}
}

// syslogForms are times of this year or of the one before.
func syslogForms() []string { return []string{"Jan _2 15:04:05", "Jan _2 15:04", "Jan _2"} }

var spanForm = regexp.MustCompile(`^([0-9]{1,9}) ?(seconds?|sec|s|minutes?|min|m|hours?|h|days?|d|weeks?|w)`)

// parseWhen reads a time, or a span before now; without text it is zero. Times that name
// no zone are in that of now.
func parseWhen(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return time.Time{}, nil
	}
	zone := now.Location()
	for _, form := range whenForms() {
		if t, err := time.ParseInLocation(form, text, zone); err == nil {
			return t, nil
		}
	}
	for _, form := range syslogForms() {
		// 2000 was a leap year: every day of a year can be read.
		if t, err := time.ParseInLocation("2006 "+form, "2000 "+text, zone); err == nil {
			return inLastYear(t, now), nil
		}
	}
	for _, form := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(form, text); err == nil {
			last := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, zone)
			if last.After(now) {
				last = last.AddDate(0, 0, -1)
			}
			return last, nil
		}
	}
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, zone)
	switch strings.ToLower(text) {
	case "now":
		return now, nil
	case "today":
		return today, nil
	case "yesterday":
		return today.AddDate(0, 0, -1), nil
	}
	if d, ok := parseSpan(text); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf(`%q; want a span before now such as 30m, 2h or 7d, today, yesterday, or a time such as 14:30, 2026-11-28 or "2026-11-28 14:30"`, text)
}

// inLastYear gives a time the last year in which it is not after tomorrow.
func inLastYear(t, now time.Time) time.Time {
	for year := now.Year() + 1; ; year-- {
		d := time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, t.Location())
		if d.Day() == t.Day() && !d.After(now.Add(24*time.Hour)) {
			return d
		}
	}
}

// parseSpan reads 90s, 1h30m, 7d, 2w, -1h, 2 hours ago.
func parseSpan(text string) (d time.Duration, ok bool) {
	text = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(text, "-"), " ago"))
	for text != "" {
		m := spanForm.FindStringSubmatch(text)
		if m == nil {
			return 0, false
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return 0, false
		}
		unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[m[2][0]]
		const most = 100 * 366 * 24 * time.Hour
		if n > int64(most/unit) {
			return 0, false
		}
		if d += time.Duration(n) * unit; d > most {
			return 0, false
		}
		text, ok = strings.TrimPrefix(text[len(m[0]):], " "), true
	}
	return d, ok
}
