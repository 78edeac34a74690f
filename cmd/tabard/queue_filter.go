package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/config"
	"tabard/queue"
)

const filterHelp = `Filters choose envelopes: each that is given must match, and of several values of one,
one. In texts * stands for any characters, and case does not matter. A sender or a
recipient is an address or a domain, "<>" the sender of bounces; a recipient is looked
for after aliases and as it was given. A destination is a domain, a local user, or what
"ls --by destination" prints. Ages are like 90s, 15m, 4h or 2d. States are active (being
delivered), due, deferred (until the next attempt) and held.`

// filterFlags are the ways to choose envelopes.
type filterFlags struct {
	f            queue.Filter
	states       []string
	older, newer string
	attempts     string
}

func (f *filterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.f.Sender, "sender", nil, "mail from an `address` or a domain; \"<>\" for bounces")
	flags.StringArrayVar(&f.f.Recipient, "recipient", nil, "mail to an `address` or a domain")
	flags.StringArrayVar(&f.f.Domain, "domain", nil, "mail to a `domain`")
	flags.StringArrayVar(&f.f.Destination, "destination", nil, "mail to a `domain`, a user, or a destination")
	flags.StringArrayVar(&f.f.Action, "action", nil, "mail of an `action`")
	flags.StringArrayVar(&f.f.Error, "error", nil, "mail whose last error contains `text`")
	flags.StringArrayVar(&f.f.HeldFor, "held-for", nil, "mail that is held, and why contains `text`")
	flags.StringSliceVar(&f.states, "state", nil, "mail in a `state`: active, due, deferred or held")
	flags.StringVar(&f.older, "older", "", "mail accepted longer ago than `age`")
	flags.StringVar(&f.newer, "newer", "", "mail accepted less than `age` ago")
	flags.StringVar(&f.attempts, "attempts", "", "mail tried so many times: `N`, N- or N-M")
}

// filter returns what the flags ask for at now.
func (f *filterFlags) filter(now time.Time) (queue.Filter, error) {
	c := f.f
	for _, s := range f.states {
		c.States = append(c.States, queue.State(s))
	}
	for _, age := range []struct {
		flag, text string
		at         *time.Time
	}{{"older", f.older, &c.Before}, {"newer", f.newer, &c.Since}} {
		if age.text == "" {
			continue
		}
		d, ok := config.ParseDelay(age.text)
		if !ok {
			return c, exitf(exUsage, "--%s %q: want an age such as 30m, 4h or 2d", age.flag, age.text)
		}
		*age.at = now.Add(-d)
	}
	if f.attempts != "" {
		r, ok := parseRange(f.attempts)
		if !ok {
			return c, exitf(exUsage, "--attempts %q: want a number, N- or N-M", f.attempts)
		}
		c.Attempts = &r
	}
	return c, withCode(exUsage, c.Check())
}

// parseRange reads N, N- or N-M.
func parseRange(text string) (queue.Range, bool) {
	first, last, ranged := strings.Cut(text, "-")
	low, err := strconv.ParseUint(first, 10, 31)
	if err != nil {
		return queue.Range{}, false
	}
	r := queue.Range{Min: int(low), Max: int(low)}
	if ranged && last == "" {
		r.Max = -1
	} else if ranged {
		high, err := strconv.ParseUint(last, 10, 31)
		if err != nil || high < low {
			return queue.Range{}, false
		}
		r.Max = int(high)
	}
	return r, true
}

// none reports whether no flag was given but those named.
func (f *filterFlags) none(cmd *cobra.Command, but ...string) bool {
	for _, name := range []string{"sender", "recipient", "domain", "destination", "action", "error", "held-for", "state", "older", "newer", "attempts"} {
		if cmd.Flags().Changed(name) && !slices.Contains(but, name) {
			return false
		}
	}
	return true
}
