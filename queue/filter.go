package queue

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/internal/rpc"
)

// State is where an envelope is on its way.
type State string

// The states of an envelope.
const (
	StateActive   State = "active"   // a worker is trying it
	StateDue      State = "due"      // it may be tried now
	StateDeferred State = "deferred" // until its next attempt
	StateHeld     State = "held"     // it came due and is kept back, or is held by hand
)

// States returns all states.
func States() []State { return []State{StateActive, StateDue, StateDeferred, StateHeld} }

// Field is something that envelopes can be counted by.
type Field string

// The fields of an envelope.
const (
	FieldSender       Field = "sender"        // reverse-path; empty: null
	FieldSenderDomain Field = "sender-domain" // its domain
	FieldRecipient    Field = "recipient"     // address after expansion
	FieldGiven        Field = "rcpt"          // address as given in RCPT
	FieldDomain       Field = "domain"        // of the recipient
	FieldDestination  Field = "destination"   // what shares a fate: action/domain, action or action/user
	FieldAction       Field = "action"
	FieldError        Field = "error" // of the last attempt
	FieldState        Field = "state"
	FieldAttempts     Field = "attempts"
)

// Fields returns all fields.
func Fields() []Field {
	return []Field{FieldSender, FieldSenderDomain, FieldRecipient, FieldGiven, FieldDomain, FieldDestination, FieldAction, FieldError, FieldState, FieldAttempts}
}

// Range is the numbers from Min to Max; without an upper bound if Max < 0.
type Range struct{ Min, Max int }

// Filter chooses envelopes. Each field that is set must match; of several values
// in one field, one. The zero Filter chooses all. In texts '*' stands for any
// characters, and case does not matter.
//
// A process of another version, which knows fewer fields or more, does not decode it: one
// that is passed over would choose more mail than was meant.
type Filter struct {
	_           struct{} `cbor:",toarray"`
	IDs         []string // messages, "MESSAGE", or envelopes, "MESSAGE.N"
	Sender      []string // an address, a domain, or "<>"
	Recipient   []string // an address or a domain: after expansion, or as given in RCPT
	Domain      []string // the recipient's
	Destination []string // a domain, a user, or a destination as it is counted by
	Action      []string
	Error       []string // a part of the last error
	HeldFor     []string // a part of why it is held
	States      []State
	Before      time.Time // accepted before; zero: whenever
	Since       time.Time // accepted then or later
	Attempts    *Range
	Until       MessageID // only messages with a lesser id; 0: all
}

// Bounds of a Filter. A list of ids is longer than one of texts, since programs
// write it.
const (
	MaxFilterIDs   = 1000
	maxFilterTexts = 50
	maxStars       = 8 // in a text
)

// Like is a text that a field must look like; '*' stands for any characters.
type Like struct {
	Field Field
	Glob  string
}

// Check refuses a Filter that no store should be asked with; the error wraps
// rpc.ErrInvalid.
func (f *Filter) Check() error {
	if len(f.IDs) > MaxFilterIDs {
		return fmt.Errorf("%w: more than %d ids", rpc.ErrInvalid, MaxFilterIDs)
	}
	for _, id := range f.IDs {
		if _, _, err := ParseID(id); err != nil {
			return fmt.Errorf("%w: %w", rpc.ErrInvalid, err)
		}
	}
	for _, texts := range [][]string{f.Sender, f.Recipient, f.Domain, f.Destination, f.Action, f.Error, f.HeldFor} {
		if len(texts) > maxFilterTexts {
			return fmt.Errorf("%w: more than %d values of one filter", rpc.ErrInvalid, maxFilterTexts)
		}
		for _, t := range texts {
			if t == "" || len(t) > maxText || !oneLine(t) || strings.Count(t, "*") > maxStars {
				return fmt.Errorf("%w: filter %.60q: want one line of 1 to %d bytes, with up to %d times *", rpc.ErrInvalid, t, maxText, maxStars)
			}
		}
	}
	for _, s := range f.States {
		if !slices.Contains(States(), s) {
			return fmt.Errorf("%w: state %.20q: want one of %v", rpc.ErrInvalid, s, States())
		}
	}
	if len(f.States) > len(States()) {
		return fmt.Errorf("%w: more than %d states", rpc.ErrInvalid, len(States()))
	}
	return nil
}

// Conditions returns what the texts of a Filter ask: of each list one must be so.
func (f *Filter) Conditions() [][]Like {
	var all [][]Like
	add := func(texts []string, likes func(string) []Like) {
		var one []Like
		for _, t := range texts {
			one = append(one, likes(t)...)
		}
		if len(one) > 0 {
			all = append(all, one)
		}
	}
	fields := func(of func(string) []string, fields ...Field) func(string) []Like {
		return func(t string) (likes []Like) {
			for _, glob := range of(t) {
				for _, field := range fields {
					likes = append(likes, Like{field, glob})
				}
			}
			return likes
		}
	}
	plain := func(t string) []string { return []string{t} }
	add(f.Sender, fields(addressGlobs, FieldSender))
	add(f.Recipient, fields(addressGlobs, FieldRecipient, FieldGiven))
	add(f.Domain, fields(func(t string) []string { return addressGlobs("@" + strings.TrimPrefix(t, "@")) }, FieldRecipient))
	add(f.Destination, func(t string) []Like {
		likes := []Like{{FieldDestination, t}}
		for _, d := range domains(t) {
			likes = append(likes, Like{FieldDestination, "*/" + d}, Like{FieldRecipient, "*@" + d})
		}
		return likes
	})
	add(f.Action, fields(plain, FieldAction))
	add(f.Error, fields(func(t string) []string { return []string{"*" + t + "*"} }, FieldError))
	return all
}

// addressGlobs is what an address looks like that somebody means by t: an address,
// a domain, or "<>".
func addressGlobs(t string) []string {
	if t == "<>" {
		return []string{""}
	}
	t = strings.TrimSuffix(strings.TrimPrefix(t, "<"), ">")
	local, domain := address.Split(t)
	if domain == "" { // one without '@'
		local, domain = "", t
	}
	if local == "" {
		local = "*"
	}
	var globs []string
	for _, d := range domains(domain) {
		globs = append(globs, local+"@"+d)
	}
	return globs
}

// domains returns the forms in which a domain may be stored.
func domains(d string) []string {
	d = strings.TrimSuffix(d, ".")
	forms := []string{d}
	for _, form := range []string{address.Labels(d), address.Unicode(d)} {
		if !slices.ContainsFunc(forms, func(f string) bool { return strings.EqualFold(f, form) }) {
			forms = append(forms, form)
		}
	}
	return forms
}
