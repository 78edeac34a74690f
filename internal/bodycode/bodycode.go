// Package bodycode is how message bodies are stored when they are compressed (zstd,
// RFC 8878), encrypted (AES-256-GCM), or both, in this order.
//
// A stored body is chunks, each of 64 KiB of the body but for the last one, so that
// any part of it can be read without the rest and within little memory. An encrypted
// one begins with a salt of 32 random bytes. A chunk is a word of four bytes, highest
// first, and as many bytes as its lower 24 bits say:
//
//	bit 31     these are a zstd frame, not the bytes themselves: what would not
//	           shrink is left as it is
//	bit 30     it is the last chunk
//
// # Keys and nonces
//
// Each message has a key of its own, by HKDF-SHA256 from the master key and the
// salt. That two of 2^64 messages share a salt has a chance of 2^-128, so a message's
// key is never used for another one, and the nonces only have to differ within the
// message: they are those of STREAM (Hoang, Reyhanitabar, Rogaway and Vizár, 2015), the
// number of the chunk and whether it is the last. A master key directly, with random
// nonces of 96 bits, would have to be replaced after 2^32 chunks.
//
// Chunks that were changed, cut off, put in another order or taken from another
// message do not open. With the last one the id of the message and the size of the body
// are authenticated, so that a whole body in the place of another is found, too: the
// id is known only when all is written.
package bodycode

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"tabard/internal/sealing"
)

// ChunkSize is how much of a body is in a chunk, bytes.
const ChunkSize = 64 << 10

const (
	headSize = 4
	saltSize = 32
	tagSize  = 16

	flagZstd   = 1 << 31
	flagLast   = 1 << 30
	lengthMask = 1<<24 - 1

	wordZstd = "zstd"
	wordAES  = "aes-256-gcm:" // and the id of the master key
	info     = "tabard queue body 1"
)

// ErrDamaged means that what is stored is not what was written.
var ErrDamaged = errors.New("stored body is damaged")

// NoKeyError means that the key of an encrypted body is not at hand.
type NoKeyError = sealing.NoKeyError

// UnknownError means that a body is stored in a way that this version does not know.
type UnknownError struct{ Encoding Encoding }

// Error implements error.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("body is stored as %.60q, which this version does not know", string(e.Encoding))
}

// Options say how bodies are written, and with which keys they are read.
type Options struct {
	Compress bool
	Encrypt  bool          // under the first of Keys
	Keys     *sealing.Ring // nil: there are none
}

// Coder writes bodies in one way, and reads them in all. It is immutable, and safe
// for concurrent use; one that is not needed any more is left to the collector.
type Coder struct {
	compress bool
	key      string // id of the key that encrypts; empty: nothing is encrypted
	ring     *sealing.Ring
	zip      *zstd.Encoder
	unzip    *zstd.Decoder
	buffers  sync.Pool // of *[]byte with room for a stored chunk
}

// New returns a Coder. To encrypt needs a key.
func New(o Options) (*Coder, error) {
	c := &Coder{compress: o.Compress, ring: o.Keys}
	if o.Encrypt {
		if o.Keys == nil {
			return nil, errors.New("encryption without a key")
		}
		c.key = o.Keys.IDs()[0]
	}
	c.buffers.New = func() any {
		b := make([]byte, 0, headSize+ChunkSize+tagSize)
		return &b
	}
	var err error
	// Bodies have a checksum of their own, or are authenticated.
	c.zip, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(ChunkSize),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	// Never more than there is room for comes out, whatever a frame says.
	c.unzip, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(ChunkSize), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return c, nil
}

// Encoding is how a body is stored: empty for one that is stored as it is, else
// "zstd", "aes-256-gcm:ID" or "zstd+aes-256-gcm:ID" with the id of the master key.
type Encoding string

func encodingOf(compress bool, key string) Encoding {
	var words []string
	if compress {
		words = append(words, wordZstd)
	}
	if key != "" {
		words = append(words, wordAES+key)
	}
	return Encoding(strings.Join(words, "+"))
}

// Key is the id of the master key of an encrypted body, else empty.
func (e Encoding) Key() string {
	_, key, _ := strings.Cut(string(e), wordAES)
	return key
}

// Known reports whether this version knows the encoding.
func (e Encoding) Known() bool {
	return e == encodingOf(strings.HasPrefix(string(e), wordZstd), e.Key()) && !strings.Contains(e.Key(), "+")
}

// HasKey reports whether it has a master key.
func (c *Coder) HasKey(id string) bool { return c.ring.Has(id) }

// Keys are the ids of the master keys that it has, the newest first.
func (c *Coder) Keys() []string {
	if c.ring == nil {
		return nil
	}
	return c.ring.IDs()
}

// Encoding is how this Coder stores what shrinks.
func (c *Coder) Encoding() Encoding { return encodingOf(c.compress, c.key) }

// Plain reports whether it stores bodies as they are.
func (c *Coder) Plain() bool { return c.Encoding() == "" }

// Encode returns the stored form of a whole body of message id. What need not be
// changed is returned as it is, and else a new slice.
func (c *Coder) Encode(id int64, body []byte) ([]byte, Encoding, error) {
	if c.Plain() {
		return body, "", nil
	}
	head, sealer, err := c.begin(c.Encoding())
	if err != nil {
		return nil, "", err
	}
	out := head
	for n := uint32(0); ; n++ {
		part := body[:min(len(body), ChunkSize)]
		if body = body[len(part):]; len(body) == 0 {
			end := &ending{id, int64(n)*ChunkSize + int64(len(part))}
			out = c.appendChunk(out, sealer, n, part, end)
			if c.key == "" && n == 0 && out[0]&(flagZstd>>24) == 0 {
				return part, "", nil // it did not shrink
			}
			return out, c.Encoding(), nil
		}
		out = c.appendChunk(out, sealer, n, part, nil)
	}
}

// ending is what is authenticated with the last chunk.
type ending struct{ id, size int64 }

// sealer encrypts the chunks of one body; nil leaves them as they are.
type sealer struct {
	aead     cipher.AEAD
	encoding Encoding
}

// begin returns what a stored body begins with, and the sealer for it.
func (c *Coder) begin(e Encoding) ([]byte, *sealer, error) {
	if c.key == "" {
		return nil, nil, nil
	}
	salt := make([]byte, saltSize, saltSize+headSize+tagSize)
	_, _ = rand.Read(salt) // never fails, see crypto/rand
	s, err := c.sealer(e, salt)
	return salt, s, err
}

func (c *Coder) sealer(e Encoding, salt []byte) (*sealer, error) {
	key, err := c.ring.Derive(e.Key(), info, salt)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead, e}, err
}

// nonce is that of chunk n: see the package comment.
func nonce(n uint32, last bool) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint32(b[7:], n)
	if last {
		b[11] = 1
	}
	return b
}

// associated is what is authenticated beside the bytes of a chunk. The encoding
// ends with a zero byte, so that no two pairs of parts make the same bytes.
func (s *sealer) associated(head uint32, end *ending) []byte {
	b := make([]byte, 0, 96)
	b = append(append(b, s.encoding...), 0)
	b = binary.BigEndian.AppendUint32(b, head)
	if end != nil {
		b = binary.BigEndian.AppendUint64(b, uint64(end.id))
		b = binary.BigEndian.AppendUint64(b, uint64(end.size))
	}
	return b
}

// appendChunk appends the stored form of chunk n; the last one has an ending.
func (c *Coder) appendChunk(out []byte, s *sealer, n uint32, part []byte, end *ending) []byte {
	var head uint32
	if end != nil {
		head |= flagLast
	}
	if c.compress {
		buf := c.buffer()
		defer c.buffers.Put(buf)
		*buf = c.zip.EncodeAll(part, (*buf)[:0])
		if len(*buf) < len(part) {
			part, head = *buf, head|flagZstd
		}
	}
	if s == nil {
		out = binary.BigEndian.AppendUint32(out, head|uint32(len(part)))
		return append(out, part...)
	}
	head |= uint32(len(part) + tagSize)
	out = binary.BigEndian.AppendUint32(out, head)
	return s.aead.Seal(out, nonce(n, end != nil), part, s.associated(head, end))
}

func (c *Coder) buffer() *[]byte { return c.buffers.Get().(*[]byte) }
