package lookup

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"runtime"
)

// maxMessage bounds what an Ed25519 key signs at once, in bytes: the transcript
// of a TLS 1.2 handshake with client certificate.
const maxMessage = 128 << 10

// ErrSign means that a request is not for a signature that its handle is for.
var ErrSign = errors.New("not a signature of this use")

// Sign makes one signature. With a certificate's key only what a TLS 1.2 or 1.3
// handshake can ask for is signed: SHA-256, SHA-384 or SHA-512 digests of the
// right length, and for Ed25519, where the message itself is seen, messages of a
// handshake in the role that the handle was issued for. With a key for mail only
// SHA-256 digests are, as RFC 6376 and RFC 8463 have it.
func (s *Service) Sign(_ context.Context, r SignRequest) ([]byte, error) {
	h, err := s.custody.find(r.Handle)
	if err != nil {
		return nil, err
	}
	opts, err := signOptions(h, r)
	if err != nil {
		return nil, err
	}
	sig, err := h.pair.signer.Sign(rand.Reader, r.Digest, opts)
	runtime.KeepAlive(h.pair) // its key is wiped when nobody has it
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sig, nil
}

func signOptions(h holder, r SignRequest) (crypto.SignerOpts, error) {
	if h.use == UseDKIM {
		return dkimOptions(h, r)
	}
	switch h.pair.signer.(type) {
	case ed25519.PrivateKey:
		if r.Hash != 0 || r.PSS || !handshakeMessage(r.Digest, h.use) {
			return nil, fmt.Errorf("%w: Ed25519", ErrSign)
		}
		return crypto.Hash(0), nil
	case *ecdsa.PrivateKey:
		if r.PSS {
			return nil, fmt.Errorf("%w: PSS with an ECDSA key", ErrSign)
		}
	case *rsa.PrivateKey:
	default:
		return nil, fmt.Errorf("%w: key type", ErrSign)
	}
	switch r.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return nil, fmt.Errorf("%w: hash %d", ErrSign, uint(r.Hash))
	}
	if len(r.Digest) != r.Hash.Size() {
		return nil, fmt.Errorf("%w: digest of %d bytes", ErrSign, len(r.Digest))
	}
	if r.PSS {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: r.Hash}, nil
	}
	return r.Hash, nil
}

// dkimOptions allows rsa-sha256, and ed25519-sha256, which signs the digest as if
// it were the message.
func dkimOptions(h holder, r SignRequest) (crypto.SignerOpts, error) {
	want := crypto.SHA256
	if _, ed := h.pair.signer.(ed25519.PrivateKey); ed {
		want = 0
	}
	if r.Hash != want || r.PSS || len(r.Digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("%w: not a SHA-256 digest of a message", ErrSign)
	}
	return want, nil
}

// handshakeMessage reports whether msg has the form of what one side of a
// handshake signs.
func handshakeMessage(msg []byte, use Use) bool {
	if len(msg) > maxMessage {
		return false
	}
	// TLS 1.3: 64 spaces, the context, a NUL, the transcript's hash (RFC 8446
	// section 4.4.3).
	if rest, ok := bytes.CutPrefix(msg, bytes.Repeat([]byte{' '}, 64)); ok {
		side := "server"
		if use == UseClient {
			side = "client"
		}
		hash, ok := bytes.CutPrefix(rest, []byte("TLS 1.3, "+side+" CertificateVerify\x00"))
		return ok && len(hash) >= 32 && len(hash) <= 64
	}
	if use == UseClient {
		// TLS 1.2: the handshake so far, from the ClientHello (RFC 5246 section
		// 7.4.8).
		return len(msg) > 4 && msg[0] == 1
	}
	// TLS 1.2: both randoms and the parameters of a named curve (RFC 8422
	// section 5.4).
	return len(msg) >= 64+5 && len(msg) <= 64+4+255 && msg[64] == 3
}
