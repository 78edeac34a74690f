package rpc

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// limits bound what a small message can make the decoder allocate, whatever the
// size of a frame.
type limits struct{ nesting, elements, pairs int }

// Coding encodes and decodes messages between processes: CBOR (RFC 8949) with a
// decoder for hostile input. It is safe for concurrent use.
type Coding struct {
	enc  cbor.UserBufferEncMode
	dec  cbor.DecMode
	bufs sync.Pool // of *bytes.Buffer
}

// NewCoding returns the coding that every connection between processes uses.
// Strings may hold any bytes; times keep their nanoseconds and arrive in UTC. A
// list may have 8192 elements, a map 1024.
func NewCoding() (*Coding, error) {
	return newCoding(limits{nesting: 12, elements: 8192, pairs: 1024})
}

// NewTrustedCoding returns the same coding with the wide limits that a
// configuration needs, for what comes from the supervisor alone.
func NewTrustedCoding() (*Coding, error) {
	return newCoding(limits{nesting: 64, elements: 1 << 24, pairs: 1 << 24})
}

func newCoding(l limits) (*Coding, error) {
	enc, err := cbor.EncOptions{
		Time:        cbor.TimeRFC3339NanoUTC,
		IndefLength: cbor.IndefLengthForbidden,
	}.UserBufferEncMode()
	if err != nil {
		return nil, fmt.Errorf("cbor encoder: %w", err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8DecodeInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		MaxNestedLevels:   l.nesting,
		MaxArrayElements:  l.elements,
		MaxMapPairs:       l.pairs,
	}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("cbor decoder: %w", err)
	}
	return &Coding{enc: enc, dec: dec}, nil
}

// Marshal encodes a plain value.
func (c *Coding) Marshal(v any) ([]byte, error) { return c.enc.Marshal(v) }

// encode is Marshal into a buffer that is for release when it has been sent.
func (c *Coding) encode(v any) (*bytes.Buffer, error) {
	b, ok := c.bufs.Get().(*bytes.Buffer)
	if !ok {
		b = new(bytes.Buffer)
	}
	b.Reset()
	return b, c.enc.MarshalToBuffer(v, b)
}

// release gives a buffer back that nobody reads any more; nil is none.
func (c *Coding) release(b *bytes.Buffer) {
	if b != nil && b.Cap() <= keepBuffer {
		c.bufs.Put(b)
	}
}

// Unmarshal decodes exactly one value into v, a pointer. What it allocates is
// bounded by the length of data and the limits of the coding.
func (c *Coding) Unmarshal(data []byte, v any) error { return c.dec.Unmarshal(data, v) }
