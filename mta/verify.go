package mta

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"tabard/internal/address"
	"tabard/lookup"
)

// inspection asks lookup for its verdict on a server's chain during one
// handshake, and stops the handshake if the policy needs a better one.
type inspection struct {
	mta     *MTA
	ctx     context.Context // of the session being opened; tls's callback has none
	dest    *destination
	host    *host
	channel channel
	seen    string // fingerprint of the server's certificate; empty: there was none, or it was not got to
	down    error  // lookup could not judge it
	err     error  // why the handshake was stopped
	fault   fault  // that err is
	shown   string // subject of our own certificate, if the server wanted it
}

// config returns the TLS configuration for the handshake. crypto/tls verifies
// nothing itself: chain, names and trust anchors are lookup's business.
func (i *inspection) config() *tls.Config {
	cfg := &tls.Config{
		ServerName:         i.host.name,
		InsecureSkipVerify: true,
		VerifyConnection:   i.inspect,
	}
	i.host.policy.handshake.Apply(cfg)
	if i.dest.route.Present {
		cfg.GetClientCertificate = i.present
	}
	return cfg
}

// present is asked for our certificate when the server wants one. The one that
// the action names is shown to whoever asks; where there is none to show, the
// handshake ends: going on as nobody is not what was configured.
func (i *inspection) present(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(i.ctx, i.mta.cfg.Timeouts.Lookup)
	defer cancel()
	req := lookup.CertificateRequest{Action: i.dest.action, ServerName: i.dest.helo}
	for _, scheme := range r.SignatureSchemes {
		req.Schemes = append(req.Schemes, uint16(scheme))
	}
	own, err := i.mta.lookup.Certificate(ctx, req)
	var cert *tls.Certificate
	if err == nil {
		cert, err = lookup.TLSCertificate(i.ctx, i.mta.lookup, own)
	}
	if err != nil {
		// It is not the server's fault, and may pass.
		i.err, i.fault = fmt.Errorf("client certificate for %s: %w", i.host.name, err), faultAuth
		return nil, i.err
	}
	i.shown = cert.Leaf.Subject.String()
	return cert, nil
}

func (i *inspection) inspect(state tls.ConnectionState) error {
	chain := make([][]byte, len(state.PeerCertificates))
	for n, cert := range state.PeerCertificates {
		chain[n] = cert.Raw
	}
	ctx, cancel := context.WithTimeout(i.ctx, i.mta.cfg.Timeouts.Lookup)
	defer cancel()
	verdict, err := i.mta.lookup.Verify(ctx, lookup.VerifyRequest{
		Action: i.dest.action, Use: lookup.UseServer, Name: i.host.name, Names: i.host.policy.names, Chain: chain,
	})
	if err != nil {
		verdict = lookup.Verdict{State: lookup.Unchecked}
	}
	i.channel = channelOf(state, i.host.policy.names)
	i.channel.verdict, i.down, i.seen = verdict, err, fingerprint(state)
	if i.err = i.judge(); i.err != nil {
		i.fault = faultPeer
		if i.down != nil {
			i.fault = faultUnchecked
		}
	}
	return i.err
}

// judge returns why the server is not the one that it must be.
func (i *inspection) judge() error {
	p := &i.host.policy
	switch {
	case len(p.pins) > 0 && !p.pinned(i.channel):
		return fmt.Errorf("certificate of %s has none of the fingerprints that %s lists", i.host.name, p.by)
	case !p.chain:
		return nil
	case i.down != nil:
		return fmt.Errorf("certificate of %s could not be checked: %w", i.host.name, i.down)
	case i.channel.verdict.State == lookup.Failed:
		return fmt.Errorf("certificate of %s not verified: %s", i.host.name, i.channel.verdict.Reason)
	case i.channel.verdict.State != lookup.Verified:
		return errors.New("certificate was not checked")
	}
	return nil
}

// cipherText is the form of the log: "TLSv1.3:TLS_AES_128_GCM_SHA256:128".
func cipherText(state tls.ConnectionState) string {
	c := channel{version: state.Version, suite: state.CipherSuite}
	return c.cipher()
}

// cipher is cipherText of an encrypted channel.
func (c *channel) cipher() string {
	suite := tls.CipherSuiteName(c.suite)
	bits := 128
	if strings.Contains(suite, "_256_") || strings.Contains(suite, "CHACHA20") {
		bits = 256
	}
	version := strings.Replace(tls.VersionName(c.version), "TLS ", "TLSv", 1)
	return fmt.Sprintf("%s:%s:%d", version, suite, bits)
}

var (
	errNoTLS    = errors.New("the server does not offer STARTTLS")
	errUntagged = errors.New("the server does not offer REQUIRETLS, which the message needs")
)

// secure runs a handshake and says what came of it.
func (i *inspection) secure(ctx context.Context, l *link,
	handshake func(context.Context, *tls.Config) *refusal, log *slog.Logger) (channel, *refusal) {
	ref := handshake(ctx, i.config())
	if i.err != nil {
		ref = &refusal{fault: i.fault, err: i.err}
	}
	conn, ok := l.conn.(*tls.Conn)
	if ref == nil && !ok {
		ref = &refusal{fault: faultHandshake, err: errNotPermitted}
	}
	if ref == nil {
		log.Info("mta tls", "ciphers", cipherText(conn.ConnectionState()))
	}
	i.report(log)
	if ref != nil {
		return channel{}, ref
	}
	if i.shown != "" {
		log.Info("mta cert-shown", "subject", address.OneLine(i.shown, 255))
	}
	return i.channel, nil
}

// report logs the verdict, also when the handshake came to nothing because of
// it: that is when it is looked for.
func (i *inspection) report(log *slog.Logger) {
	if i.seen == "" {
		return
	}
	i.mta.count.verdicts.Add(1, lookup.VerdictSeries("out", i.channel.verdict)...)
	attrs := []any{"result", i.channel.verdict.State.String(), "fingerprint", i.seen}
	switch {
	case i.channel.verdict.State == lookup.Verified:
		attrs = append(attrs, "identity", address.OneLine(i.channel.verdict.Identity, 255))
	case i.channel.verdict.State == lookup.Failed:
		attrs = append(attrs, "reason", address.OneLine(i.channel.verdict.Reason, 255))
	case i.down != nil:
		attrs = append(attrs, "error", address.OneLine(i.down.Error(), 255))
	}
	log.Info("mta cert-check", attrs...)
}

// fingerprint names the server's certificate as `openssl x509 -fingerprint
// -sha256` does, in lower case and without colons.
func fingerprint(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	return fmt.Sprintf("SHA256:%x", sha256.Sum256(state.PeerCertificates[0].Raw))
}
