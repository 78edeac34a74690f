package smtpd

import (
	"crypto/tls"
	"log/slog"

	"github.com/emersion/go-smtp"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/lookup"
)

// clientCert is what a session knows of its client's certificate.
type clientCert struct {
	chain   [][]byte // DER, as presented; empty without one
	verdict lookup.Verdict
	user    string // who logs in by it
	err     error  // lookup could not say
}

// forgetClient forgets what the client said of itself (RFC 3207 section 4.2).
func (s *session) forgetClient() {
	s.helo, s.user, s.authenticated, s.byPassword, s.cert = "", "", false, false, clientCert{}
}

// presented lets lookup judge the client's certificate, where one was asked for
// and sent. Whom it belongs to is authenticated from here on. The verdict is a
// fact for Received and rules; mayMail acts on it.
func (s *session) presented(state tls.ConnectionState) {
	if s.c.ln.Verify != config.VerifyNone && len(state.PeerCertificates) > 0 {
		for _, cert := range state.PeerCertificates {
			s.cert.chain = append(s.cert.chain, cert.Raw)
		}
		s.identify()
	}
	if s.cert.verdict == (lookup.Verdict{}) { // identify has counted any other
		s.srv.count.judged(s.cert.verdict)
	}
}

// identify asks lookup who the client is by its certificate, and takes that over
// unless it has logged in with a password.
func (s *session) identify() {
	ctx, cancel := s.asking()
	defer cancel()
	before := s.cert
	id, err := s.srv.lookup.Identify(ctx, lookup.VerifyRequest{Listener: s.c.ln.Index, Use: lookup.UseClient, Chain: s.cert.chain})
	if s.cert.err = err; err != nil {
		// What was known stays; there is no mail before it is known again.
		s.c.warn("smtp lookup failed", slog.String("question", "certificate"), slog.String("error", err.Error()))
		return
	}
	s.cert.verdict, s.cert.user = id.Verdict, id.User
	if !s.byPassword {
		s.user = id.User
	}
	if s.cert.verdict != before.verdict {
		v := id.Verdict
		s.srv.count.judged(v)
		s.c.event("smtp cert-check", slog.String("result", v.State.String()), slog.String("identity", address.OneLine(v.Identity, 255)),
			slog.String("reason", address.OneLine(v.Reason, 255)))
	}
	if s.cert.user == before.user {
		return
	}
	if s.cert.user == "" {
		s.srv.count.logins.Add(1, methodCertificate, "revoked")
		s.c.event("smtp authentication", slog.String("user", address.OneLine(before.user, 255)), slog.String("method", "certificate"), slog.String("result", "revoked"))
		return
	}
	s.srv.count.logins.Add(1, methodCertificate, "ok")
	s.c.event("smtp authentication", slog.String("user", address.OneLine(id.User, 255)), slog.String("method", "certificate"),
		slog.String("identity", address.OneLine(id.By, 255)), slog.String("result", "ok"))
}

// stillIdentified asks again before each transaction: a row that was deleted, or
// an authority that was withdrawn, ends what a live connection may do. Who has
// logged in with a password does not depend on it, unless the listener demands a
// certificate.
func (s *session) stillIdentified() *smtp.SMTPError {
	ln := s.c.ln
	if len(s.cert.chain) == 0 || s.byPassword && ln.Verify != config.VerifyRequire {
		return nil
	}
	if !ln.HasCertAuth && s.cert.err == nil {
		return nil // the verdict of the handshake stands
	}
	was := s.cert.user
	s.identify()
	switch {
	case s.cert.err != nil:
		return refuse(451, smtp.EnhancedCode{4, 7, 0}, "Client certificate cannot be checked now")
	case s.byPassword || was == "" || was == s.cert.user:
		return nil
	case s.cert.user == "" || s.authenticated:
		// Who said EXTERNAL is not somebody else in the middle of a session.
		s.authenticated, s.user = false, ""
		return refuse(550, smtp.EnhancedCode{5, 7, 1}, "Client certificate is not accepted any more")
	}
	return nil
}

// external is SASL's EXTERNAL mechanism (RFC 4422 appendix A): the client is who
// its certificate says, and may say so itself, or leave it out.
func (s *session) external(identity string) error {
	s.identify()
	switch {
	case s.cert.err != nil:
		s.logAuth(methodExternal, identity, "tempfail")
		return refuse(454, smtp.EnhancedCode{4, 7, 0}, "Temporary authentication failure")
	case s.cert.user == "" || identity != "" && identity != s.cert.user:
		return s.authFailed(methodExternal, identity, "permfail")
	}
	s.authenticated = true
	s.logAuth(methodExternal, s.cert.user, "ok")
	return nil
}
