package rpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// A frame is a length (4 bytes, big endian, without itself) and a payload:
//
//	call    1, seq (8), remaining milliseconds or 0 (8), length of method (1), method, CBOR argument
//	cancel  2, seq (8)
//	answer  3, seq (8), code (1), CBOR result or, with a code other than 0, error text
const (
	kindCall   = 1
	kindCancel = 2
	kindAnswer = 3

	lengthSize   = 4
	callHead     = 1 + 8 + 8 + 1
	cancelHead   = 1 + 8
	answerHead   = 1 + 8 + 1
	maxMethod    = 255
	readerBuffer = 64 << 10
	// maxDeadline is the longest deadline that travels; a longer one is none.
	maxDeadline = 30 * 24 * time.Hour
)

// errFrame is the fault of a peer that does not keep to the format.
var errFrame = errors.New("malformed frame")

// keepBuffer is the largest buffer that is kept for the next use. What maxBulk requests
// of 64 KiB need is kept.
const keepBuffer = 512 << 10

// frameReader takes frames off a connection.
type frameReader struct {
	r    *bufio.Reader
	max  int
	keep []byte // for borrowed payloads
}

func newFrameReader(r io.Reader, max int) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, readerBuffer), max: max}
}

// length reads the length of the next payload. It returns io.EOF only when the
// connection ended between two frames.
func (f *frameReader) length() (int, error) {
	var head [lengthSize]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || uint64(n) > uint64(f.max) {
		return 0, fmt.Errorf("%w: length %d, at most %d allowed", errFrame, n, f.max)
	}
	return int(n), nil
}

// payload reads the n bytes that length announced. The caller owns them.
func (f *frameReader) payload(n int) ([]byte, error) {
	return f.fill(make([]byte, n))
}

// borrow is payload for a caller that is done with the bytes when it reads again.
func (f *frameReader) borrow(n int) ([]byte, error) {
	if n > keepBuffer {
		return f.payload(n)
	}
	if n > cap(f.keep) {
		f.keep = make([]byte, min(max(n, 2*cap(f.keep)), keepBuffer))
	}
	return f.fill(f.keep[:n])
}

func (f *frameReader) fill(p []byte) ([]byte, error) {
	_, err := io.ReadFull(f.r, p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return p, err
}

// request is a decoded call or cancel frame.
type request struct {
	cancel  bool
	seq     uint64
	timeout time.Duration // 0: none
	method  string
	body    []byte
}

func parseRequest(p []byte) (request, error) {
	if len(p) == cancelHead && p[0] == kindCancel {
		return request{cancel: true, seq: binary.BigEndian.Uint64(p[1:])}, nil
	}
	if len(p) < callHead || p[0] != kindCall {
		return request{}, fmt.Errorf("%w: not a request", errFrame)
	}
	r := request{seq: binary.BigEndian.Uint64(p[1:])}
	if ms := binary.BigEndian.Uint64(p[9:]); ms < uint64(maxDeadline/time.Millisecond) {
		r.timeout = time.Duration(ms) * time.Millisecond
	}
	end := callHead + int(p[17])
	if len(p) < end {
		return request{}, fmt.Errorf("%w: method name cut short", errFrame)
	}
	r.method, r.body = string(p[callHead:end]), p[end:]
	return r, nil
}

func callSize(method string, body []byte) int { return callHead + len(method) + len(body) }

// appendCall adds a call frame; the method is at most maxMethod bytes.
func appendCall(b []byte, seq uint64, timeout time.Duration, method string, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(callSize(method, body)))
	b = append(b, kindCall)
	b = binary.BigEndian.AppendUint64(b, seq)
	// Rounded up: a deadline that is near must not turn into none.
	b = binary.BigEndian.AppendUint64(b, uint64((timeout+time.Millisecond-1)/time.Millisecond))
	b = append(b, byte(len(method)))
	b = append(b, method...)
	return append(b, body...)
}

func appendCancel(b []byte, seq uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, cancelHead)
	b = append(b, kindCancel)
	return binary.BigEndian.AppendUint64(b, seq)
}

// answer is a decoded answer frame.
type answer struct {
	seq  uint64
	code code
	body []byte // result, or error text
}

func parseAnswer(p []byte) (answer, error) {
	if len(p) < answerHead || p[0] != kindAnswer {
		return answer{}, fmt.Errorf("%w: not an answer", errFrame)
	}
	return answer{seq: binary.BigEndian.Uint64(p[1:]), code: code(p[9]), body: p[answerHead:]}, nil
}

func appendAnswer[T string | []byte](b []byte, seq uint64, c code, body T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(answerHead+len(body)))
	b = append(b, kindAnswer)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(b, byte(c))
	return append(b, body...)
}
