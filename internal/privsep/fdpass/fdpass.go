// Package fdpass sends small CBOR messages over a UNIX stream socket, each with
// at most one open file (SCM_RIGHTS).
//
// A frame is a length (4 bytes, big endian, without itself), one byte that is 1
// when a file comes with it and else 0, and the message. The peer may be
// hostile: sizes and the number of files that wait are bounded, and whatever
// breaks the format is an error after which the connection is to be closed.
package fdpass

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"tabard/internal/rpc"
)

const (
	headSize = 5
	// maxWaiting is how many files may arrive before their messages.
	maxWaiting = 4
	// sendTimeout bounds one send: the peer has stopped reading.
	sendTimeout = 10 * time.Second
)

// ErrFormat means that the peer does not keep to the format.
var ErrFormat = errors.New("malformed message")

// Conn sends and receives messages. Send may be called from many goroutines,
// the receiving methods from one.
type Conn struct {
	conn    *net.UnixConn
	coding  *rpc.Coding
	maxSend int
	maxRecv int

	sending sync.Mutex
	waiting []*os.File
}

// New uses conn, which it owns from now on, for messages of up to maxSend bytes
// out and maxRecv bytes in.
func New(conn *net.UnixConn, maxSend, maxRecv int) (*Conn, error) {
	coding, err := rpc.NewCoding()
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Conn{conn: conn, coding: coding, maxSend: maxSend, maxRecv: maxRecv}, nil
}

// FromFile uses the UNIX stream socket f, which it closes, in New's way.
func FromFile(f *os.File, maxSend, maxRecv int) (*Conn, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("%s is not a unix socket", f.Name())
	}
	return New(unix, maxSend, maxRecv)
}

// Pair returns two connected UNIX stream sockets that are closed on exec.
func Pair() (a, b *os.File, err error) {
	// The lock keeps a process that is started meanwhile from inheriting them.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair"), nil
}

// Send sends v, and with it f unless f is nil. The caller still owns f.
func (c *Conn) Send(v any, f *os.File) error {
	body, err := c.coding.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > c.maxSend {
		return fmt.Errorf("message of %d bytes: %w", len(body), rpc.ErrTooLarge)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, headSize+len(body)), uint32(1+len(body)))
	frame = append(frame, 0)
	frame = append(frame, body...)
	if f == nil {
		return c.write(frame, nil)
	}
	frame[headSize-1] = 1
	raw, err := f.SyscallConn() // f.Fd() would make it blocking, also for who shares it
	if err != nil {
		return err
	}
	var werr error
	if err := raw.Control(func(fd uintptr) { werr = c.write(frame, syscall.UnixRights(int(fd))) }); err != nil {
		return err
	}
	return werr
}

func (c *Conn) write(frame, rights []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	n, _, err := c.conn.WriteMsgUnix(frame, rights, nil)
	if err != nil || n == len(frame) {
		return err
	}
	_, err = c.conn.Write(frame[n:]) // a long frame does not fit at once
	return err
}

// Recv receives a message into v, a pointer. A file that comes with it is
// dropped by the kernel. It returns io.EOF when the peer has closed.
func (c *Conn) Recv(v any) error {
	_, body, err := c.frame(func(p []byte) error {
		_, err := io.ReadFull(c.conn, p)
		return err
	})
	if err != nil {
		return err
	}
	return c.decode(body, v)
}

// RecvFile receives a message and the file that comes with it, nil if none
// does. The file is closed on exec.
func (c *Conn) RecvFile(v any) (*os.File, error) {
	withFile, body, err := c.frame(c.readRights)
	if err != nil {
		return nil, err
	}
	var f *os.File
	if withFile {
		if len(c.waiting) == 0 {
			return nil, fmt.Errorf("%w: its file is missing", ErrFormat)
		}
		f, c.waiting = c.waiting[0], c.waiting[1:]
	}
	if err := c.decode(body, v); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return f, nil
}

func (c *Conn) decode(body []byte, v any) error {
	if err := c.coding.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// frame reads one frame with read, which fills its argument.
func (c *Conn) frame(read func([]byte) error) (withFile bool, body []byte, err error) {
	var head [headSize]byte
	if err := read(head[:]); err != nil {
		return false, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 2 || uint64(n) > uint64(c.maxRecv)+1 || head[headSize-1] > 1 {
		return false, nil, fmt.Errorf("%w: length %d, at most %d allowed", ErrFormat, n, c.maxRecv+1)
	}
	body = make([]byte, n-1)
	if err := read(body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return false, nil, err
	}
	return head[headSize-1] == 1, body, nil
}

// readRights fills p and keeps the files that arrive meanwhile.
func (c *Conn) readRights(p []byte) error {
	oob := make([]byte, syscall.CmsgSpace(4*maxWaiting))
	for done := 0; done < len(p); {
		n, oobn, flags, _, err := c.conn.ReadMsgUnix(p[done:], oob)
		if kerr := c.keep(oob[:oobn]); kerr != nil {
			return kerr
		}
		switch ended := errors.Is(err, io.EOF) || err == nil && n == 0; {
		case ended && done == 0:
			return io.EOF
		case ended:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case flags&syscall.MSG_CTRUNC != 0:
			return fmt.Errorf("%w: too many files", ErrFormat)
		}
		done += n
	}
	return nil
}

// keep takes the files out of control messages.
func (c *Conn) keep(oob []byte) error {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	for i := range msgs {
		fds, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // credentials or the like: not for us
		}
		for _, fd := range fds {
			c.waiting = append(c.waiting, os.NewFile(uintptr(fd), "received"))
		}
	}
	if len(c.waiting) > maxWaiting {
		return fmt.Errorf("%w: too many files", ErrFormat)
	}
	return nil
}

// SetDeadline bounds the receiving methods.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// Close closes the connection, for a goroutine that is receiving too.
func (c *Conn) Close() error { return c.conn.Close() }

// Discard closes the files that arrived and were not received. The receiving
// goroutine calls it when it stops.
func (c *Conn) Discard() {
	for _, f := range c.waiting {
		f.Close()
	}
	c.waiting = nil
}
