package mta

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"

	"tabard/lookup"
	"tabard/queue"
)

// channel is what a connection turned out to be.
type channel struct {
	encrypted      bool
	verdict        lookup.Verdict
	names          []string // that the verdict is about
	version, suite uint16   // as crypto/tls counts them
	cert, key      [32]byte // SHA-256 of the server's certificate, and of its public key
	tagged         bool     // REQUIRETLS is offered (RFC 8689)
}

// channelOf describes a handshake; the verdict is still to come.
func channelOf(state tls.ConnectionState, names []string) channel {
	c := channel{encrypted: true, names: names, version: state.Version, suite: state.CipherSuite}
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		c.cert, c.key = sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	}
	return c
}

func (c *channel) verified() bool { return c.encrypted && c.verdict.State == lookup.Verified }

// pinned reports whether the server's certificate or key is one of those that a
// policy lists.
func (p policy) pinned(c channel) bool {
	return c.encrypted && (slices.Contains(p.pins, c.cert) || slices.Contains(p.pins, c.key))
}

// trusts reports whether passwords may go over the channel.
func (p policy) trusts(c channel) bool { return c.verified() || p.pinned(c) }

var errNotPermitted = errors.New("the connection does not keep what the route promises")

// permits is the last word before a message is sent, also over a connection
// that was opened for an earlier one.
func (p policy) permits(c channel) error {
	switch {
	case p.level >= levelEncrypt && !c.encrypted,
		p.chain && !(c.verified() && slices.Equal(p.names, c.names)),
		len(p.pins) > 0 && !p.pinned(c),
		c.encrypted && !p.handshake.Permits(c.version, c.suite),
		p.tagged && !c.tagged:
		return errNotPermitted
	}
	return nil
}

// had is the level that a channel has, in the light of what was asked of it.
func (p policy) had(c channel) level {
	switch {
	case !c.encrypted:
		return levelNone
	case p.pinned(c):
		return levelFingerprint
	case c.verified() && p.level == levelSecure && slices.Equal(p.names, c.names):
		return levelSecure
	case c.verified():
		return levelVerify
	}
	return levelEncrypt
}

// key names what a server was asked for: another message may ask for less.
func (p policy) key() string {
	return fmt.Sprintf("%s %s %q %x %t %t %v", p.scheme, p.level, p.names, p.pins, p.chain, p.tagged, p.handshake)
}

// security is what logs and results say of an attempt without a channel.
func (p policy) security() queue.Security {
	if p.level == 0 {
		return queue.Security{}
	}
	return queue.Security{Wanted: p.level.String(), By: p.by}
}
