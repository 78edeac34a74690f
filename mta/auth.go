package mta

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"tabard/lookup"
)

// authenticate logs in with the credentials of the host's label, over a trusted
// channel only: before that is certain, not even lookup is asked for them.
func (m *MTA) authenticate(ctx context.Context, l *link, d *destination, h *host, ch channel) *refusal {
	if h.label == "" {
		return nil
	}
	if !h.policy.trusts(ch) && !d.route.InsecureAuth {
		return &refusal{fault: faultAuth, err: fmt.Errorf(
			"the credentials of %q go only over an encrypted and verified channel", h.label)}
	}
	mechanism, err := chooseMechanism(l.offers["AUTH"])
	if err != nil {
		return &refusal{fault: faultAuth, err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	cred, err := m.lookup.RelayCredentials(ctx, lookup.CredentialsRequest{Action: d.action, Label: h.label})
	if err != nil {
		return &refusal{fault: faultAuth, err: fmt.Errorf("could not retrieve the credentials of %q: %w", h.label, err)}
	}
	if strings.ContainsRune(cred.User+cred.Password, 0) {
		return &refusal{fault: faultAuth, err: fmt.Errorf("the credentials of %q hold a NUL", h.label)}
	}
	r, err := l.login(mechanism, cred)
	if errors.Is(err, errBadReply) {
		err = errBadReply // what it quotes may be the password, sent back
	}
	return refuse(faultAuth, "AUTH "+mechanism, hide(r, cred), err, r.code == 235)
}

// chooseMechanism picks from the parameters of the AUTH keyword.
func chooseMechanism(offered string) (string, error) {
	words := strings.Fields(strings.ToUpper(offered))
	for _, want := range []string{"PLAIN", "LOGIN"} {
		for _, word := range words {
			if word == want {
				return want, nil
			}
		}
	}
	return "", errors.New("the server offers neither AUTH PLAIN nor AUTH LOGIN")
}

// login runs RFC 4616 or the LOGIN dialogue, in which whatever the server asks
// first is the user name.
func (l *link) login(mechanism string, cred lookup.Credentials) (reply, error) {
	lines := []string{"AUTH PLAIN " + encode("\x00"+cred.User+"\x00"+cred.Password)}
	if mechanism == "LOGIN" {
		lines = []string{"AUTH LOGIN", encode(cred.User), encode(cred.Password)}
	}
	var r reply
	var err error
	for _, line := range lines {
		if r, err = l.command(l.timeouts.Command, line); err != nil || r.code != 334 {
			break
		}
	}
	return r, err
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// hide removes what a server echoed of the credentials from its reply, which
// goes to logs and bounces.
func hide(r reply, cred lookup.Credentials) reply {
	for _, secret := range []string{
		encode("\x00" + cred.User + "\x00" + cred.Password), encode(cred.Password), cred.Password,
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
