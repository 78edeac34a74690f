package smtpd

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/lookup"
)

// maxAuthFailures closes a session that guesses: the third failure is answered
// with 421.
const maxAuthFailures = 3

// AuthMechanisms offers passwords under TLS only (RFC 4954 section 4), and
// EXTERNAL to a client whose certificate is somebody's, or may be. Such a client is
// authenticated already, and may still log in as somebody else.
func (s *session) AuthMechanisms() []string {
	if s.c.tls == nil || s.authenticated {
		return nil
	}
	var all []string
	if s.cert.user != "" || s.cert.err != nil && s.c.ln.HasCertAuth {
		all = append(all, sasl.External)
	}
	if s.c.ln.Auth != config.AuthNone {
		all = append(all, sasl.Plain, sasl.Login)
	}
	return all
}

// noAuth refuses AUTH where it is not offered.
func (s *session) noAuth() bool {
	c := s.c
	switch {
	case c.ln.Auth == config.AuthNone && !c.ln.HasCertAuth:
		c.reply(503, "5.5.1", "Authentication is not offered here")
	case c.tls == nil:
		c.reply(538, "5.7.11", "Encryption required for authentication: use STARTTLS")
	case s.authenticated:
		c.reply(503, "5.5.1", "Already authenticated")
	case len(s.AuthMechanisms()) == 0: // to a client whose certificate is nobody's
		c.reply(503, "5.5.1", "Authentication is not offered here")
	case s.tx != nil:
		c.reply(503, "5.5.1", "AUTH is not allowed during a mail transaction")
	default:
		return false
	}
	return true
}

// Auth begins one attempt.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	offered := slices.Contains(s.AuthMechanisms(), mechanism)
	switch {
	case mechanism == sasl.Plain && offered:
		return saslServer{sasl.NewPlainServer(s.authenticatePlain)}, nil
	case mechanism == sasl.Login && offered:
		return &loginServer{done: s.authenticate}, nil
	case mechanism == sasl.External && offered:
		return saslServer{sasl.NewExternalServer(s.external)}, nil
	}
	return nil, refuse(504, smtp.EnhancedCode{5, 5, 4}, "Unrecognized authentication mechanism")
}

func (s *session) authenticatePlain(identity, user, password string) error {
	if identity != "" && identity != user {
		return s.authFailed(methodPassword, user, "permfail")
	}
	return s.authenticate(user, password)
}

// authenticate asks lookup. Passwords with line ends or NUL never leave here:
// they would be lines in a table program's protocol.
func (s *session) authenticate(user, password string) error {
	if user == "" || strings.ContainsAny(user, "\r\n\x00") || strings.ContainsAny(password, "\r\n\x00") {
		return s.authFailed(methodPassword, user, "permfail")
	}
	ctx, cancel := s.asking()
	defer cancel()
	r, err := s.srv.lookup.Authenticate(ctx, lookup.AuthRequest{Listener: s.c.ln.Index, User: user, Password: password})
	switch {
	case err != nil:
		s.c.warn("smtp lookup failed", slog.String("question", "authenticate"), slog.String("error", err.Error()))
		s.logAuth(methodPassword, user, "tempfail")
		return refuse(454, smtp.EnhancedCode{4, 7, 0}, "Temporary authentication failure")
	case !r.OK:
		return s.authFailed(methodPassword, user, "permfail")
	}
	if s.user = r.User; s.user == "" {
		s.user = user
	}
	s.authenticated, s.byPassword = true, true
	s.logAuth(methodPassword, user, "ok")
	return nil
}

// authFailed waits a little before it answers: guessing shall take time, and a
// connection has maxAuthFailures guesses.
func (s *session) authFailed(method, user, result string) error {
	s.logAuth(method, user, result)
	s.failures++
	s.c.pause(s.srv.cfg.Timeouts.AuthDelay)
	if s.failures >= maxAuthFailures {
		return refuse(421, smtp.EnhancedCode{4, 7, 0}, "Too many authentication failures")
	}
	return refuse(535, smtp.EnhancedCode{5, 7, 8}, "Authentication failed")
}

func (s *session) logAuth(method, user, result string) {
	s.srv.count.logins.Add(1, method, result)
	if s.refused = user; result == "ok" {
		s.refused = ""
	}
	s.c.event("smtp authentication", slog.String("user", address.OneLine(user, 255)), slog.String("result", result))
}

// pause waits, but not beyond the end of the connection's life.
func (c *conn) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ctx.Done():
	}
}

// saslServer gives go-sasl's servers the SMTP reply for a response that is
// malformed.
type saslServer struct{ sasl.Server }

// Next takes the client's response.
func (p saslServer) Next(response []byte) ([]byte, bool, error) {
	challenge, done, err := p.Server.Next(response)
	var reply *smtp.SMTPError
	if err != nil && !errors.As(err, &reply) {
		err = refuse(501, smtp.EnhancedCode{5, 5, 2}, "Malformed authentication response")
	}
	return challenge, done, err
}

// loginServer is the LOGIN mechanism (draft-murchison-sasl-login), which go-sasl
// has for clients only.
type loginServer struct {
	user *string
	done func(user, password string) error
}

// Next takes the user name, perhaps sent along with AUTH, and then the password.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case l.user == nil && response == nil:
		return []byte("Username:"), false, nil
	case l.user == nil:
		user := string(response)
		l.user = &user
		return []byte("Password:"), false, nil
	}
	return nil, true, l.done(*l.user, string(response))
}
