package mta

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// link is a connection to a server while the session is being opened: greeting,
// EHLO, STARTTLS, AUTH. A dialogue goes on over it when that is done.
type link struct {
	conn     net.Conn
	in       *bufio.Reader
	timeouts *Timeouts
	offers   map[string]string // EHLO keyword in upper case, and its parameters
	unbind   func() bool
	shook    time.Duration // in the TLS handshake
}

func newLink(ctx context.Context, conn net.Conn, t *Timeouts) *link {
	l := &link{conn: conn, in: bufio.NewReaderSize(conn, maxReplyLine), timeouts: t}
	l.bind(ctx)
	return l
}

// bind makes the end of ctx, instead of that of an earlier one, end the
// connection.
func (l *link) bind(ctx context.Context) {
	if l.unbind != nil {
		l.unbind()
	}
	conn := l.conn
	l.unbind = context.AfterFunc(ctx, func() { conn.Close() })
}

func (l *link) close() {
	l.unbind()
	l.conn.Close()
}

func (l *link) read(timeout time.Duration) (reply, error) {
	if err := l.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return reply{}, err
	}
	r, err := readReply(l.in)
	return r, plainError(err)
}

// command sends one line and reads the answer.
func (l *link) command(timeout time.Duration, line string) (reply, error) {
	if l.in.Buffered() > 0 {
		return reply{}, errUnsolicited
	}
	if err := l.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return reply{}, err
	}
	if _, err := io.WriteString(l.conn, line+"\r\n"); err != nil {
		return reply{}, plainError(err)
	}
	return l.read(timeout)
}

// greeting waits for the server's welcome.
func (l *link) greeting() *refusal {
	r, err := l.read(l.timeouts.Greeting)
	return refuse(faultGreeting, "greeting", r, err, r.code == 220)
}

// hello introduces us with EHLO or LHLO, and with HELO if fallback is allowed
// and the server does not know EHLO.
func (l *link) hello(verb, name string, fallback bool) *refusal {
	r, err := l.command(l.timeouts.Command, verb+" "+name)
	l.offers = nil
	if err == nil && r.permanent() && fallback {
		verb = "HELO"
		r, err = l.command(l.timeouts.Command, verb+" "+name)
	}
	if ref := refuse(faultHello, verb, r, err, r.code == 250); ref != nil {
		return ref
	}
	if verb != "HELO" {
		l.offers = parseOffers(r.lines[1:])
	}
	return nil
}

// parseOffers reads the lines of an EHLO reply after the first. Of a keyword
// that comes twice, the first counts.
func parseOffers(lines []string) map[string]string {
	offers := make(map[string]string, len(lines))
	for _, line := range lines {
		keyword, params, _ := strings.Cut(line, " ")
		keyword = strings.ToUpper(keyword)
		if _, ok := offers[keyword]; !ok {
			offers[keyword] = strings.TrimSpace(params)
		}
	}
	return offers
}

// startTLS asks for TLS and shakes hands.
func (l *link) startTLS(ctx context.Context, cfg *tls.Config) *refusal {
	r, err := l.command(l.timeouts.Command, "STARTTLS")
	if ref := refuse(faultRefused, "STARTTLS", r, err, r.code == 220); ref != nil {
		return ref
	}
	// Whatever came along with the 220 came in clear, perhaps from a third
	// party, and must not be read as said inside TLS (CVE-2011-0411).
	if l.in.Buffered() > 0 {
		return &refusal{fault: faultInjected, err: errors.New("data injected after STARTTLS")}
	}
	return l.handshake(ctx, cfg)
}

// handshake makes the connection a TLS one.
func (l *link) handshake(ctx context.Context, cfg *tls.Config) *refusal {
	ctx, cancel := context.WithTimeout(ctx, l.timeouts.TLS)
	defer cancel()
	if err := l.conn.SetDeadline(time.Now().Add(l.timeouts.TLS)); err != nil {
		return &refusal{fault: faultHandshake, err: err}
	}
	conn := tls.Client(l.conn, cfg)
	began := time.Now()
	err := conn.HandshakeContext(ctx)
	l.shook = time.Since(began)
	if err != nil {
		return &refusal{fault: faultHandshake, err: fmt.Errorf("TLS handshake: %w", plainError(err))}
	}
	l.conn = conn
	l.in = bufio.NewReaderSize(conn, maxReplyLine)
	return nil
}

// plainError says in the words of the field what cut a dialogue short.
func plainError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errClosed
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return errTimeout
	}
	return err
}

var (
	errClosed  = errors.New("connection closed by the server")
	errTimeout = errors.New("timeout")
)
