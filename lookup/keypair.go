package lookup

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"runtime"
	"syscall"
	"time"

	"tabard/table"
)

// The sizes of RSA keys that are served, and accepted from peers, in bits. Larger
// ones cost seconds of CPU for each handshake; crypto/tls has the same bound.
const (
	minRSA = 2048
	maxRSA = 8192
)

// keyPair is a certificate chain with its private key. It is immutable, and
// only package lookup ever sees it.
type keyPair struct {
	chain       [][]byte // DER, leaf first
	leaf        *x509.Certificate
	signer      crypto.Signer
	fingerprint [32]byte
}

// valid says why the leaf cannot be served at a time, or nil.
func (k *keyPair) valid(now time.Time) error {
	switch {
	case now.Before(k.leaf.NotBefore):
		return &unfit{ReasonNotYetValid, "certificate is not valid before " + k.leaf.NotBefore.UTC().Format(time.RFC3339)}
	case now.After(k.leaf.NotAfter):
		return &unfit{ReasonExpired, "certificate expired at " + k.leaf.NotAfter.UTC().Format(time.RFC3339)}
	}
	return nil
}

// parseKeyPairs reads a cert answer. Several database rows arrive as columns
// chain, key, chain, key: each two are read on their own, so that one broken row
// spoils no other. What cannot be used is told in err, which may come along
// with pairs that can.
func (v *vault) parseKeyPairs(row table.Row) ([]*keyPair, error) {
	if len(row) > 2 && len(row)%2 == 0 {
		var all []*keyPair
		var errs []error
		for i := 0; i < len(row); i += 2 {
			pairs, err := v.openKeyPairs(row[i : i+2])
			all = append(all, pairs...)
			if err != nil {
				errs = append(errs, fmt.Errorf("row %d: %w", i/2+1, err))
			}
		}
		if len(all) > 0 {
			return all, errors.Join(errs...)
		}
	}
	return v.openKeyPairs(row)
}

func (v *vault) openKeyPairs(row table.Row) ([]*keyPair, error) {
	row, err := table.KeyFiles(row)
	if err != nil {
		return nil, err
	}
	parsed, err := table.ParseKeyPairs(row)
	if err != nil {
		return nil, err
	}
	var pairs []*keyPair
	var errs []error
	for _, p := range parsed {
		signer, err := v.openKey(p.Key)
		if err == nil && !table.Belongs(signer, p.Leaf) {
			err = &unfit{FaultMismatch, "private key does not belong to the certificate"}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		pair := &keyPair{chain: p.Chain, leaf: p.Leaf, signer: signer, fingerprint: fingerprint(p.Chain)}
		runtime.AddCleanup(pair, wipe, signer)
		pairs = append(pairs, pair)
	}
	return pairs, errors.Join(errs...)
}

// openKey reads a private key, and refuses those that are too weak, that take
// too long, or that TLS has no use for.
func (v *vault) openKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("private key is not PEM")
	}
	key, err := v.open(block)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if bits := k.N.BitLen(); bits < minRSA || bits > maxRSA {
			reason := ReasonWeakKey
			if bits > maxRSA {
				reason = ReasonUnsupportedKey
			}
			return nil, &unfit{reason, fmt.Sprintf("RSA key of %d bits; want %d to %d", bits, minRSA, maxRSA)}
		}
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return nil, &unfit{ReasonUnsupportedKey, fmt.Sprintf("ECDSA key on curve %s; want P-256, P-384 or P-521", k.Params().Name)}
		}
	case ed25519.PrivateKey:
	default:
		return nil, &unfit{ReasonUnsupportedKey, fmt.Sprintf("private key of type %T; want ECDSA, RSA or Ed25519", key)}
	}
	return key, nil
}

// wipe clears a key that nobody has any more, as far as Go lets us: ECDSA keys may
// not be touched, and what crypto packages derived from the others, and the text
// that they were read from, go to the garbage collector as they are.
func wipe(signer crypto.Signer) {
	ints := func(all ...*big.Int) {
		for _, i := range all {
			if i != nil {
				clear(i.Bits())
			}
		}
	}
	switch k := signer.(type) {
	case *rsa.PrivateKey:
		ints(k.D, k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv)
		ints(k.Primes...)
	case ed25519.PrivateKey:
		clear(k)
	}
}

func fingerprint(chain [][]byte) (sum [32]byte) {
	h := sha256.New()
	for _, der := range chain {
		h.Write(der)
	}
	h.Sum(sum[:0])
	return sum
}

// rowSum is a hash of a row's content, of what it is to be opened with, and of the
// files it refers to, as they are now.
func rowSum(row table.Row, stamp uint64) (sum [32]byte) {
	h := sha256.New()
	number := func(n uint64) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
	number(stamp)
	for _, col := range row {
		number(uint64(len(col)))
		h.Write([]byte(col))
		if path, ok := table.KeyFile(col); ok {
			h.Write([]byte(fileStamp(path)))
		}
	}
	h.Sum(sum[:0])
	return sum
}

// fileStamp is another text when a file was replaced or written to, or can be read
// no more, or again. It costs less than the reading.
func fileStamp(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close() // it was not written to
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	inode := uint64(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprint(inode, info.Size(), info.ModTime().UnixNano())
}
