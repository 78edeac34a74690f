package mta

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// dialogue is what is said over an opened link from MAIL to QUIT. Commands go
// out in groups where the server offers PIPELINING (RFC 2920), every reply is
// read whole by readReply, and every wait has its deadline. go-smtp's client is
// not used: it awaits each reply before it sends the next command, and has no
// BDAT.
type dialogue struct {
	link   *link
	out    *bufio.Writer
	err    error         // the connection is of no more use
	body   time.Duration // how long the server may still take for a body
	inBody bool
}

// bodyRate is how many bytes of a body a server must take each second, beyond the
// first Timeouts.Block. RFC 5321 section 4.5.3.2.5 gives three minutes to each
// block and no end to all: a server that takes a block every three minutes would
// keep its place for days.
const bodyRate = 1000

var errSlow = fmt.Errorf("the server took less than %d bytes/s", bodyRate)

// Bounds of one group: what is on its way in both directions fits the buffers of
// any two systems, so that neither side waits for the other (RFC 2920 section 3.1).
const (
	groupCommands = 64
	groupBytes    = 8 << 10
)

var (
	errLeaving  = errors.New("the server is closing the session")
	errDialogue = errors.New("the server answers out of turn")
)

func newDialogue(l *link) *dialogue {
	c := &dialogue{link: l}
	c.out = bufio.NewWriterSize(blockWriter{c}, 16<<10)
	return c
}

// beginBody bounds the time that the server takes for the writes of a body, of so
// many bytes, until endBody. Time that we need to read it does not count.
func (c *dialogue) beginBody(size int64) {
	c.inBody = true
	c.body = c.link.timeouts.Block + time.Duration(size)*(time.Second/bodyRate)
}

func (c *dialogue) endBody() { c.inBody = false }

// blockWriter gives every write of its own a deadline, within that of a body.
type blockWriter struct{ c *dialogue }

func (w blockWriter) Write(p []byte) (int, error) {
	c := w.c
	began, patience := time.Now(), c.link.timeouts.Block
	if c.inBody {
		patience = min(patience, c.body)
	}
	if err := c.link.conn.SetWriteDeadline(began.Add(patience)); err != nil {
		return 0, err
	}
	n, err := c.link.conn.Write(p)
	if c.inBody {
		if c.body -= time.Since(began); c.body <= 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			err = errSlow
		}
	}
	return n, err
}

// fail makes the connection useless for the first reason there is.
func (c *dialogue) fail(err error) error {
	if c.err == nil {
		c.err = plainError(err)
	}
	return c.err
}

// quiet fails when the server spoke without being asked: answers and questions
// no longer belong together. It must be asked whenever no answer is due.
func (c *dialogue) quiet() error {
	if c.err == nil && c.link.in.Buffered() > 0 {
		return c.fail(errUnsolicited)
	}
	return c.err
}

// send sends commands, without waiting for the answers.
func (c *dialogue) send(lines ...string) error {
	if err := c.quiet(); err != nil {
		return err
	}
	for _, line := range lines {
		// Errors stay with the writer.
		_, _ = c.out.WriteString(line)
		_, _ = c.out.WriteString("\r\n")
	}
	return c.flush()
}

func (c *dialogue) flush() error {
	if err := c.out.Flush(); err != nil {
		return c.fail(err)
	}
	return nil
}

// reply reads the answer to the command that is next in turn. 421 is the last
// that a server says (RFC 5321 section 3.8).
func (c *dialogue) reply(timeout time.Duration) (reply, error) {
	if c.err != nil {
		return reply{}, c.err
	}
	if err := c.link.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return reply{}, c.fail(err)
	}
	r, err := readReply(c.link.in)
	if err != nil {
		return reply{}, c.fail(err)
	}
	if r.code == 421 {
		c.fail(errLeaving)
	}
	return r, nil
}

// command sends one command and waits for its answer.
func (c *dialogue) command(timeout time.Duration, line string) (reply, error) {
	if err := c.send(line); err != nil {
		return reply{}, err
	}
	return c.reply(timeout)
}

// group returns how many of the commands that are left may go out together.
func (c *dialogue) group(left []question) int {
	if _, ok := c.link.offers["PIPELINING"]; !ok {
		return 1
	}
	n, size := 0, 0
	for n < len(left) && n < groupCommands && (n == 0 || size+len(left[n].line) < groupBytes) {
		size += len(left[n].line) + len("\r\n")
		n++
	}
	return n
}

func (c *dialogue) close() {
	c.fail(net.ErrClosed)
	c.link.close()
}

// dots writes a body with its lines dot-stuffed (RFC 5321 section 4.5.2). Its
// line ends must be CRLF.
type dots struct {
	out    *bufio.Writer
	inLine bool
}

func (d *dots) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if p[0] == '.' && !d.inLine {
			if err := d.out.WriteByte('.'); err != nil {
				return 0, err
			}
		}
		end := len(p)
		if i := lineStart(p); i > 0 {
			end = i
		}
		if _, err := d.out.Write(p[:end]); err != nil {
			return 0, err
		}
		d.inLine = p[end-1] != '\n'
		p = p[end:]
	}
	return n, nil
}

// end ends the last line and the body.
func (d *dots) end() error {
	last := ".\r\n"
	if d.inLine {
		last = "\r\n" + last
	}
	_, err := io.WriteString(d.out, last)
	return err
}
