package ldap

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// maxMessage bounds one LDAP message, and so one entry, as it comes in.
const maxMessage = 64 << 20

var errMessage = errors.New("message from the server is too large or none of LDAP")

// wire is the network connection under the library, which reads whole messages
// whatever their size and waits for a server for ever. Searches go past the
// library: the answers to those are taken out of what it reads.
type wire struct {
	net.Conn
	timeout time.Duration // of a write
	last    atomic.Int64  // when something was read, in nanoseconds

	in   *bufio.Reader
	rest int64 // bytes left of the library's message; its reader's alone

	writing chan struct{} // held by who writes
	out     encoder       // its

	mu    sync.Mutex
	asked map[int]*exchange
	id    int
	err   error // why there is nothing to be had any more
}

// Message ids of ours begin beyond any that the library, which counts from 1, gets
// to.
const (
	firstID = 1 << 30
	lastID  = 1<<31 - 2

	abandonID = lastID + 1 // of what gets no answer
)

// wireBuffer holds some hundred short answers.
const wireBuffer = 16 << 10

func newWire(c net.Conn, timeout time.Duration) *wire {
	w := &wire{Conn: c, timeout: timeout, writing: make(chan struct{}, 1), asked: make(map[int]*exchange), id: firstID}
	w.in = bufio.NewReaderSize(arrivals{w}, wireBuffer)
	return w
}

// arrivals notes when something comes.
type arrivals struct{ w *wire }

func (a arrivals) Read(b []byte) (int, error) {
	n, err := a.w.Conn.Read(b)
	if n > 0 {
		a.w.last.Store(time.Now().UnixNano())
	}
	return n, err
}

// Read is called by the library's reader all the time: this is where answers to
// searches are found, too.
func (w *wire) Read(b []byte) (int, error) {
	for w.rest == 0 {
		if err := w.message(); err != nil {
			w.fail(err)
			return 0, err
		}
	}
	n, err := w.in.Read(b[:min(int64(len(b)), w.rest)])
	w.rest -= int64(n)
	if err != nil {
		w.fail(err)
	}
	return n, err
}

// message looks at the beginning of a message. One of the library's is left to be
// read, another is taken.
func (w *wire) message() error {
	size, id, err := w.head()
	if err != nil {
		return err
	}
	if id < firstID {
		w.rest = size
		return nil
	}
	w.mu.Lock()
	x := w.asked[id]
	w.mu.Unlock()
	if x == nil { // given up meanwhile
		_, err := io.CopyN(io.Discard, w.in, size)
		return err
	}
	text, err := w.text(size)
	if err != nil {
		return err
	}
	switch done, ok := x.take(text); {
	case !ok:
		return errMessage
	case done:
		w.end(x)
	}
	return nil
}

// head peeks at the length of the next message and its id, which is 0 where it
// cannot be read.
func (w *wire) head() (size int64, id int, err error) {
	head, err := w.in.Peek(2)
	if err != nil {
		return 0, 0, err
	}
	begin := 2
	if head[1] > 0x80 && head[1] <= 0x88 {
		begin += int(head[1] & 0x7f)
		if head, err = w.in.Peek(begin); err != nil {
			return 0, 0, err
		}
	}
	var f frame
	if !f.feed(head) || f.head {
		return 0, 0, errMessage
	}
	const idSize = 6 // tag, length and four bytes: no id of ours has fewer
	if f.rest >= idSize {
		if head, err = w.in.Peek(begin + idSize); err != nil {
			return 0, 0, err
		}
		if n := head[begin:]; n[0] == tagInteger && n[1] == 4 {
			id = int(int32(binary.BigEndian.Uint32(n[2:])))
		}
	}
	return int64(begin) + f.rest, id, nil
}

// text reads a message. Memory is taken as it comes in, not as it is announced.
func (w *wire) text(size int64) (string, error) {
	if size <= wireBuffer {
		b, err := w.in.Peek(int(size))
		if err != nil {
			return "", err
		}
		text := string(b)
		_, err = w.in.Discard(len(b))
		return text, err
	}
	var b strings.Builder
	_, err := io.CopyN(&b, w.in, size)
	return b.String(), err
}

// Write writes a message of the library's.
func (w *wire) Write(b []byte) (int, error) {
	w.writing <- struct{}{}
	defer func() { <-w.writing }()
	if err := w.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

// send writes what encode makes, unless ctx ends before it is its turn. A message
// that was written in part is the end of the connection.
func (w *wire) send(ctx context.Context, encode func(*encoder)) error {
	select {
	case w.writing <- struct{}{}:
		defer func() { <-w.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	until := time.Now().Add(w.timeout)
	if at, ok := ctx.Deadline(); ok && at.Before(until) {
		until = at
	}
	w.out.b = w.out.b[:0]
	encode(&w.out)
	err := w.SetWriteDeadline(until)
	if err == nil {
		_, err = w.Conn.Write(w.out.b)
	}
	if err != nil {
		w.fail(err)
		_ = w.Conn.Close() // it is given up
	}
	if cap(w.out.b) > wireBuffer {
		w.out.b = nil
	}
	return err
}

// abandon tells the server that nobody wants the rest of an answer, if it can be
// told at once.
func (w *wire) abandon(x *exchange) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), w.timeout)
		defer cancel()
		_ = w.send(ctx, func(e *encoder) { e.abandon(abandonID, x.id) }) // it gets no answer
	}()
}

// begin gives an exchange an id.
func (w *wire) begin(x *exchange) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	for w.asked[w.id] != nil {
		w.id = following(w.id)
	}
	x.id, w.id = w.id, following(w.id)
	w.asked[x.id] = x
	return nil
}

func following(id int) int {
	if id == lastID {
		return firstID
	}
	return id + 1
}

// end takes an exchange off, and reports whether it was on.
func (w *wire) end(x *exchange) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked[x.id] != x {
		return false
	}
	delete(w.asked, x.id)
	close(x.done)
	return true
}

// fail ends all exchanges, and those to come.
func (w *wire) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = ldap.NewError(ldap.ErrorNetwork, err)
	}
	for id, x := range w.asked {
		x.broken = true
		delete(w.asked, id)
		close(x.done)
	}
}

// broken is why the connection is of no use any more.
func (w *wire) broken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.fail(net.ErrClosed)
	return w.Conn.Close()
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
