package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"tabard/internal/address"
	"tabard/internal/config"
)

// offersTLS reports whether STARTTLS makes sense now (RFC 3207 section 4.2: not
// twice).
func (c *conn) offersTLS() bool {
	return c.tls == nil && (c.ln.TLS == config.TLSStart || c.ln.TLS == config.TLSRequire)
}

// startTLS carries out STARTTLS. go-smtp knows nothing of it.
func (s *session) startTLS(arg string) {
	c := s.c
	switch {
	case arg != "":
		c.reply(501, "5.5.4", "STARTTLS takes no parameters")
	case c.tls != nil:
		c.reply(503, "5.5.1", "TLS is active already")
	case !c.offersTLS():
		c.reply(502, "5.5.1", "STARTTLS is not offered here")
	case s.tx != nil:
		c.reply(503, "5.5.1", "STARTTLS is not allowed during a mail transaction")
	case c.br.Buffered() > 0:
		// Plain text behind STARTTLS was perhaps put there by someone between
		// us and the client, to be run inside the encrypted session.
		c.hangup("plain text after STARTTLS")
		c.reply(554, "5.5.1", "Pipelining after STARTTLS is not allowed")
	default:
		c.put("220 2.0.0 Ready to start TLS")
		c.flush()
		c.handshake()
	}
}

// handshake puts TLS between the socket and us. Nothing that the client said
// before survives (RFC 3207 section 4.2).
func (c *conn) handshake() bool {
	limit := c.srv.cfg.Timeouts.Handshake
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	_ = c.raw.SetDeadline(time.Now().Add(limit))
	tc := tls.Server(c.raw, c.srv.tls[c.ln.Index])
	c.srv.door.shake(c)
	began := time.Now()
	err := tc.HandshakeContext(ctx)
	if away := c.srv.door.shook(c); away != nil {
		err = away
	}
	c.srv.count.shook(began, err)
	if err != nil {
		c.handshakeFailed(err)
		return false
	}
	_ = c.raw.SetDeadline(time.Time{})
	c.tls, c.rw = tc, tc
	c.br.Reset(network{c})
	s := c.sess
	s.Reset()
	s.forgetClient()
	c.command = c.command[:0]
	state := tc.ConnectionState()
	c.event("smtp tls", slog.String("ciphers", cipherText(state)), slog.String("name", address.OneLine(state.ServerName, 255)))
	s.presented(state)
	return true
}

func (c *conn) handshakeFailed(err error) {
	c.dead = true
	c.linger = false
	var missing *noCertificate
	if errors.As(err, &missing) {
		c.warn("smtp tls failed", slog.String("name", missing.name), slog.String("error", missing.Error()))
	}
	if c.reason == "" {
		c.reason = "tls: " + handshakeText(err)
	}
}

// handshakeText says in the log's words what ended a handshake.
func handshakeText(err error) string {
	switch {
	case timedOut(err):
		return "timeout"
	case ended(err):
		return "connection closed during the handshake"
	case brokeOff(err):
		return "connection reset during the handshake"
	}
	return address.OneLine(strings.TrimPrefix(err.Error(), "tls: "), 255)
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// brokeOff reports whether the client went away, in whatever way.
func brokeOff(err error) bool {
	return ended(err) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// cipherText is version and cipher as Received and logs print them.
func cipherText(state tls.ConnectionState) string {
	version := strings.Replace(tls.VersionName(state.Version), " ", "v", 1)
	return version + ":" + tls.CipherSuiteName(state.CipherSuite)
}

// tlsConfig is the configuration of a listener's handshakes.
func (s *Server) tlsConfig(ln *Listener) *tls.Config {
	cfg := &tls.Config{
		// A resumed session would skip the choice of a certificate, so that a
		// replaced one went on being vouched for, and the check of the client's.
		// Tickets also break senders that resume towards another server
		// (golang/go issue 70232).
		SessionTicketsDisabled: true,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.certificate(h, ln)
		},
	}
	ln.Handshake.Apply(cfg)
	if ln.Verify != config.VerifyNone {
		cfg.ClientAuth = tls.RequestClientCert // lookup judges it, not crypto/tls
	}
	return cfg
}
