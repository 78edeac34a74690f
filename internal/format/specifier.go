package format

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"tabard/internal/address"
)

// parseSpecifier reads what stands between %{ and }.
func parseSpecifier(s string) (piece, error) {
	p := piece{}
	name := s
	if i := strings.IndexByte(s, '['); i >= 0 {
		end := strings.IndexByte(s, ']')
		if end < i {
			return p, fmt.Errorf("[ without ] in %%{%s}", s)
		}
		var err error
		if p.from, p.to, err = parseRange(s[i+1 : end]); err != nil {
			return p, fmt.Errorf("%w in %%{%s}", err, s)
		}
		p.ranged, name = true, s[:i]
		mods, ok := strings.CutPrefix(s[end+1:], ":")
		if !ok && mods != "" {
			return p, fmt.Errorf("%q after ] in %%{%s}", mods, s)
		}
		return p.named(name, mods, ok)
	}
	name, mods, ok := strings.Cut(name, ":")
	return p.named(name, mods, ok)
}

// named sets name and modifiers after checking that they exist.
func (p piece) named(name, mods string, hasMods bool) (piece, error) {
	p.name = strings.ToLower(name)
	if _, _, ok := p.lookup(Values{}); !ok {
		return p, fmt.Errorf("unknown specifier %%{%s}", name)
	}
	if !hasMods {
		return p, nil
	}
	p.mods = strings.Split(strings.ToLower(mods), "|")
	for _, m := range p.mods {
		if !slices.Contains([]string{"lowercase", "uppercase", "strip", "raw"}, m) {
			return p, fmt.Errorf("unknown modifier %q; expected lowercase, uppercase, strip or raw", m)
		}
	}
	return p, nil
}

// parseRange reads "x", "x:y", "x:", ":y". A lone x is [x:x].
func parseRange(s string) (from, to int, err error) {
	first, second, ranged := strings.Cut(s, ":")
	from, err = parseOffset(first, 0, ranged)
	if err != nil {
		return 0, 0, err
	}
	if !ranged {
		// A lone negative offset names one character; as an inclusive end it
		// is one further on, since -1 as an end leaves the last one out.
		if from < 0 {
			return from, from + 1, nil
		}
		return from, from, nil
	}
	to, err = parseOffset(second, math.MaxInt, true)
	return from, to, err
}

func parseOffset(s string, absent int, optional bool) (int, error) {
	if s == "" && optional {
		return absent, nil
	}
	n, err := strconv.ParseInt(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("bad offset %q", s)
	}
	return int(n), nil
}

// lookup returns the value of a specifier, and whether it is the
// administrator's own text, which is not made safe.
func (p piece) lookup(v Values) (value string, trusted, ok bool) {
	kind, part, _ := strings.Cut(p.name, ".")
	switch kind {
	case "sender":
		value, ok = addressPart(v.Sender, part)
	case "rcpt":
		value, ok = addressPart(v.Rcpt, part)
	case "dest":
		value, ok = addressPart(v.Dest, part)
	case "user":
		switch part {
		case "username":
			value, ok = v.User, true
		case "directory":
			value, trusted, ok = v.Home, true, true
		}
	case "mbox":
		value, ok = plain(v.Sender), part == "from"
		if value == "" {
			value = "MAILER-DAEMON"
		}
	case "mda":
		value, trusted, ok = v.MDA, true, part == "" && !strings.Contains(p.name, ".")
	}
	return value, trusted, ok
}

func addressPart(a address.Address, part string) (string, bool) {
	switch part {
	case "":
		return plain(a), true
	case "user":
		return a.Local, true
	case "domain":
		return a.Domain, true
	}
	return "", false
}

// plain is the address without the quotes that its local part may need: they
// would be made safe character by character anyway.
func plain(a address.Address) string {
	if a.Domain == "" {
		return a.Local
	}
	return a.Local + "@" + a.Domain
}

func (p piece) expand(mode Mode, v Values) (value string, trusted bool, err error) {
	value, trusted, _ = p.lookup(v)
	if p.name == "mda" && value == "" {
		return "", false, fmt.Errorf("%w: %%{mda} outside a wrapper", ErrValue)
	}
	raw := false
	for _, m := range p.mods {
		switch m {
		case "lowercase":
			value = strings.ToLower(value)
		case "uppercase":
			value = strings.ToUpper(value)
		case "strip":
			value = strip(value, v.Delim)
		case "raw":
			raw = true
		}
	}
	if !trusted {
		value = mode.safe(value, raw)
	}
	if p.ranged && value != "" {
		value, err = substring(value, p.from, p.to)
		if err != nil {
			return "", false, fmt.Errorf("%w: %%{%s}: %w", ErrValue, p.name, err)
		}
	}
	return value, trusted, nil
}

// strip takes the tag out of "user+tag" or "user+tag@domain".
func strip(s, delim string) string {
	local, domain := address.Split(s)
	user, _ := address.SplitTag(local, delim)
	if domain == "" {
		return user
	}
	return user + "@" + domain
}

// substring cuts characters from to to, to included; see the package comment.
func substring(s string, from, to int) (string, error) {
	chars := []rune(s)
	n := len(chars)
	start, end := from, to
	if start < 0 {
		start += n
	}
	if from < 0 && to == from+1 {
		end = start // a lone negative offset
	} else if end < 0 {
		end += n - 1
	}
	end = min(end, n-1)
	if start < 0 || start >= n || end < start {
		return "", fmt.Errorf("no characters [%d:%d] in a value of %d", from, to, n)
	}
	return string(chars[start : end+1]), nil
}
