package ldap

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// maxMessage bounds one LDAP message, and so one entry, as it comes in.
const maxMessage = 64 << 20

var errMessage = errors.New("message from the server is too large or none of LDAP")

// wire is the network connection under a library that reads whole messages
// whatever their size, and waits for a server for ever.
type wire struct {
	net.Conn
	timeout time.Duration // of a write
	frame   frame
	last    atomic.Int64 // when something was read, in nanoseconds
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.last.Store(time.Now().UnixNano())
		if !w.frame.feed(b[:n]) {
			return 0, errMessage
		}
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

// frame follows the lengths of messages in a stream of BER.
type frame struct {
	rest   int64 // bytes left of the message
	head   bool  // the tag was read
	length int   // bytes left of a long length
	size   int64
}

// feed takes the next bytes. It returns false when they are no message, or one
// that is too large.
func (f *frame) feed(b []byte) bool {
	for len(b) > 0 {
		if f.rest > 0 {
			n := min(f.rest, int64(len(b)))
			f.rest -= n
			b = b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		switch {
		case !f.head:
			f.head = c == 0x30
			if !f.head {
				return false
			}
			continue
		case f.length > 0:
			f.size = f.size<<8 | int64(c)
			f.length--
		case c == 0x80 || c > 0x88:
			return false
		case c > 0x80:
			f.size, f.length = 0, int(c&0x7f)
		default:
			f.size = int64(c)
		}
		if f.size > maxMessage {
			return false
		}
		if f.length == 0 {
			f.rest, f.head = f.size, false
		}
	}
	return true
}
