package mta

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"tabard/lookup"
)

// authenticate logs in with the credentials of the host's label. Unless the action
// says insecure-auth, they go over a trusted channel only: before that is certain,
// not even lookup is asked for them.
func (m *MTA) authenticate(ctx context.Context, l *link, d *destination, h *host, ch channel, log *slog.Logger) *refusal {
	if h.label == "" {
		return nil
	}
	unable := func(format string, args ...any) *refusal {
		return &refusal{fault: faultAuth, err: fmt.Errorf(format, args...)}
	}
	offered := strings.Fields(strings.ToUpper(l.offers["AUTH"]))
	if err := d.mayLogIn(h, ch, offered); err != nil {
		return unable("%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	cred, err := m.lookup.RelayCredentials(ctx, lookup.CredentialsRequest{Action: d.action, Label: h.label})
	if err != nil {
		return unable("could not retrieve the credentials of %q: %w", h.label, err)
	}
	if strings.ContainsAny(cred.User+cred.Password+cred.Token, "\x00\x01\r\n") {
		return unable("the credentials of %q hold a NUL or another control character", h.label)
	}
	mech, err := chooseMechanism(offered, cred)
	for {
		if err != nil {
			return unable("credentials of %q: %w", h.label, err)
		}
		r, unknown, err := l.login(mech)
		if errors.Is(err, errBadReply) {
			err = errBadReply // what it quotes may be the password, sent back
		}
		ref := refuse(faultAuth, "AUTH "+mech.name(), hide(r, cred), err, r.code == 235)
		if ref == nil {
			log.Info("mta auth", "mechanism", mech.name(), "label", h.label)
			return nil
		}
		if !unknown {
			return ref
		}
		log.Info("mta auth-unavailable", "mechanism", mech.name(), "reason", ref.brief())
		offered = slices.DeleteFunc(offered, func(name string) bool { return name == mech.name() })
		if mech, err = chooseMechanism(offered, cred); err != nil {
			return ref // which says more
		}
	}
}

// mayLogIn returns why no credentials may go over a channel, or could not.
func (d *destination) mayLogIn(h *host, ch channel, offered []string) error {
	switch {
	case !h.policy.trusts(ch) && !d.route.InsecureAuth:
		return fmt.Errorf("the credentials of %q go only over an encrypted and verified channel", h.label)
	case !slices.ContainsFunc(offered, func(name string) bool { return slices.Contains(mechanismNames(), name) }):
		return errors.New("the server offers neither AUTH SCRAM-SHA-256 nor PLAIN, LOGIN or XOAUTH2")
	}
	return nil
}

// mechanism is one way to log in (RFC 4422): what a client says.
type mechanism interface {
	name() string
	// initial is said along with the name; "" for what waits to be asked.
	initial() (string, error)
	// next answers a challenge, which is as it came, in base64.
	next(challenge string) (string, error)
	// proven reports why a success is not to be believed: the server had to
	// prove something, and did not.
	proven() error
}

// mechanismNames are those that there are.
func mechanismNames() []string { return []string{"SCRAM-SHA-256", "PLAIN", "LOGIN", "XOAUTH2"} }

// chooseMechanism picks, of those that the server offers, the one that gives
// least away and that the credentials are for.
func chooseMechanism(offered []string, cred lookup.Credentials) (mechanism, error) {
	offers := func(name string) bool { return slices.Contains(offered, name) }
	switch {
	case cred.Token != "" && offers("XOAUTH2"):
		return &xoauth2{cred: cred}, nil
	case cred.Token != "":
		return nil, errors.New("they are an access token, and the server does not offer AUTH XOAUTH2")
	case offers("SCRAM-SHA-256") && !cred.Plain:
		return newSCRAM(cred)
	case offers("PLAIN"):
		return plain{cred}, nil
	case offers("LOGIN"):
		return &loginMechanism{answers: []string{cred.User, cred.Password}}, nil
	}
	return nil, errors.New("they are a password, and the server offers neither AUTH PLAIN nor AUTH LOGIN nor another mechanism for one")
}

// maxChallenges bounds a dialogue that a server would go on with for ever.
const maxChallenges = 5

// errNothingToSay ends a dialogue in which the server asks too much.
var errNothingToSay = errors.New("the server asks for more than there is to say")

// unavailable reports whether the answer to AUTH is about the mechanism, which the
// server offered but does not have: 504 (RFC 4954 section 4), or a refusal that says
// so, which with Postfix is 535. Only then another one is tried. Credentials that are
// wrong stay wrong in another mechanism, and each refusal counts at the other side:
// so many lock an account.
func unavailable(r reply) bool {
	return r.code == 504 || r.permanent() && strings.Contains(strings.ToLower(r.text()), "mechanism")
}

// login carries out a mechanism (RFC 4954 section 4). unknown: the server refused
// it, before it asked anything. After an error the session is of no use.
func (l *link) login(mech mechanism) (r reply, unknown bool, err error) {
	first, err := mech.initial()
	if err != nil {
		return reply{}, false, err
	}
	line := "AUTH " + mech.name()
	if first != "" {
		line += " " + encode(first)
	}
	r, err = l.command(l.timeouts.Command, line)
	if err == nil && unavailable(r) {
		return r, true, nil
	}
	for range maxChallenges {
		if err != nil || r.code != 334 {
			break
		}
		answer, nextErr := mech.next(r.lines[0])
		if errors.Is(nextErr, errNothingToSay) {
			return r, false, nil // which is no success
		}
		if nextErr != nil {
			return r, false, nextErr
		}
		r, err = l.command(l.timeouts.Command, encode(answer))
	}
	if err == nil && r.code == 235 {
		err = mech.proven()
	}
	return r, false, err
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// plain is RFC 4616.
type plain struct{ cred lookup.Credentials }

func (plain) name() string { return "PLAIN" }

func (p plain) initial() (string, error) { return "\x00" + p.cred.User + "\x00" + p.cred.Password, nil }

func (plain) next(string) (string, error) { return "", errNothingToSay }

func (plain) proven() error { return nil }

// loginMechanism is LOGIN, in which whatever the server asks first is the user
// name.
type loginMechanism struct{ answers []string }

func (*loginMechanism) name() string { return "LOGIN" }

func (*loginMechanism) initial() (string, error) { return "", nil }

func (m *loginMechanism) next(string) (string, error) {
	if len(m.answers) == 0 {
		return "", errNothingToSay
	}
	answer := m.answers[0]
	m.answers = m.answers[1:]
	return answer, nil
}

func (*loginMechanism) proven() error { return nil }

// xoauth2 logs in with an OAuth 2.0 access token, as Google and Microsoft have it.
type xoauth2 struct {
	cred lookup.Credentials
	told bool
}

func (*xoauth2) name() string { return "XOAUTH2" }

func (m *xoauth2) initial() (string, error) {
	return "user=" + m.cred.User + "\x01auth=Bearer " + m.cred.Token + "\x01\x01", nil
}

// next answers the challenge that says what is wrong with the token: nothing is
// to be said to it, and the refusal follows.
func (m *xoauth2) next(string) (string, error) {
	if m.told {
		return "", errNothingToSay
	}
	m.told = true
	return "", nil
}

func (*xoauth2) proven() error { return nil }

// hide removes what a server echoed of the credentials from its reply, which
// goes to logs and bounces.
func hide(r reply, cred lookup.Credentials) reply {
	token, _ := (&xoauth2{cred: cred}).initial()
	for _, secret := range []string{
		encode("\x00" + cred.User + "\x00" + cred.Password), encode(cred.Password), cred.Password,
		encode(token), encode(cred.Token), cred.Token,
	} {
		if secret == "" {
			continue
		}
		for i := range r.lines {
			r.lines[i] = strings.ReplaceAll(r.lines[i], secret, "***")
		}
	}
	return r
}
