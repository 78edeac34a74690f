package mta

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// peer is a scripted SMTP server: well-behaved until told otherwise, command by
// command. It records what arrives, and every byte as it was on the wire.
type peer struct {
	t       testing.TB
	l       net.Listener
	tls     *tls.Config // STARTTLS is offered if set
	onStart bool        // TLS from the first byte
	lmtp    bool
	ehlo    []string // lines offered beside STARTTLS

	mu       sync.Mutex
	act      map[string]action // by verb; "" is the greeting, "." the end of data
	wire     []byte            // what went in and out before or without TLS, and ciphertext
	commands []string
	mails    []mail
	conns    int
	open     int
	raw      map[net.Conn]bool
	over     bool
	wg       sync.WaitGroup
}

// action is what the peer does instead of the normal reply to a command. It may
// return the reply to give, or "" when it did all there was to do; false ends
// the connection.
type action func(c *peerConn, line string) (answer string, goOn bool)

type mail struct {
	from    string
	to      []string
	body    string
	secured bool
	conn    int
}

type peerConn struct {
	*peer
	net.Conn
	in      *bufio.Reader
	secured bool
	n       int
	cur     mail
}

// say always answers the same.
func say(answer string) action {
	return func(*peerConn, string) (string, bool) { return answer, true }
}

// cut closes the connection.
func cut(*peerConn, string) (string, bool) { return "", false }

func newPeer(t testing.TB) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, l: l, act: make(map[string]action), raw: make(map[net.Conn]bool), ehlo: []string{"SIZE 1000000", "8BITMIME"}}
	t.Cleanup(func() {
		p.l.Close()
		p.cutAll()
		p.wg.Wait()
	})
	return p
}

func (p *peer) on(verb string, a action) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a == nil {
		delete(p.act, verb)
	} else {
		p.act[verb] = a
	}
	return p
}

// start serves and returns the peer's address.
func (p *peer) start() string {
	p.wg.Go(func() {
		for {
			conn, err := p.l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn) })
		}
	})
	return p.l.Addr().String()
}

// cutAll closes the connections that are left, and cuts loose who is stuck in a
// hook.
func (p *peer) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for conn := range p.raw {
		conn.Close()
	}
}

// wireConn records what goes over it, in both directions.
type wireConn struct {
	net.Conn
	p *peer
}

func (c wireConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.record(b[:n])
	return n, err
}

func (c wireConn) Write(b []byte) (int, error) {
	c.record(b)
	return c.Conn.Write(b)
}

func (c wireConn) record(b []byte) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.wire = append(c.p.wire, b...)
}

func (p *peer) serve(raw net.Conn) {
	p.mu.Lock()
	p.conns++
	p.open++
	p.raw[raw] = true
	if p.over {
		raw.Close()
	}
	c := &peerConn{peer: p, Conn: wireConn{raw, p}, n: p.conns}
	p.mu.Unlock()
	defer func() {
		c.Close()
		p.mu.Lock()
		p.open--
		delete(p.raw, raw)
		p.mu.Unlock()
	}()
	c.in = bufio.NewReader(c.Conn)
	if p.onStart && !c.upgrade() {
		return
	}
	if !c.step("", "", "220 peer.example ESMTP") {
		return
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		p.mu.Lock()
		p.commands = append(p.commands, line)
		p.mu.Unlock()
		if !c.handle(line) {
			return
		}
	}
}

// step answers a command, or lets the hook do it.
func (c *peerConn) step(verb, line, answer string) bool {
	c.mu.Lock()
	a := c.act[verb]
	c.mu.Unlock()
	goOn := true
	if a != nil {
		answer, goOn = a(c, line)
	}
	if answer != "" {
		if _, err := io.WriteString(c.Conn, answer+"\r\n"); err != nil {
			return false
		}
	}
	return goOn
}

func (c *peerConn) handle(line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch verb {
	case "EHLO", "LHLO":
		return c.step(verb, line, c.hello())
	case "STARTTLS":
		if c.hooked(verb) {
			return c.step(verb, line, "")
		}
		_, err := io.WriteString(c.Conn, "220 go ahead\r\n")
		return err == nil && c.upgrade()
	case "MAIL":
		c.cur = mail{from: arg, secured: c.secured, conn: c.n}
	case "RCPT":
		if !c.hooked(verb) {
			c.cur.to = append(c.cur.to, arg)
		}
	case "DATA":
		return c.data(line)
	case "BDAT":
		return c.chunk(arg)
	case "QUIT":
		c.step(verb, line, "221 bye")
		return false
	}
	return c.step(verb, line, "250 2.0.0 ok")
}

func (c *peerConn) hooked(verb string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.act[verb] != nil
}

func (c *peerConn) hello() string {
	lines := append([]string{"peer.example"}, c.ehlo...)
	if c.tls != nil && !c.secured && !c.onStart {
		lines = append(lines, "STARTTLS")
	}
	for i := range lines[:len(lines)-1] {
		lines[i] = "250-" + lines[i]
	}
	lines[len(lines)-1] = "250 " + lines[len(lines)-1]
	return strings.Join(lines, "\r\n")
}

func (c *peerConn) upgrade() bool {
	conn := tls.Server(c.Conn, c.tls)
	if conn.Handshake() != nil {
		return false
	}
	c.Conn, c.in, c.secured = conn, bufio.NewReader(conn), true
	return true
}

func (c *peerConn) data(line string) bool {
	if !c.step("DATA", line, "354 go") {
		return false
	}
	if c.hooked("DATA") {
		return true
	}
	var body strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		body.WriteString(strings.TrimPrefix(line, "."))
	}
	return c.taken(body.String())
}

// chunk takes a body that comes in one chunk.
func (c *peerConn) chunk(arg string) bool {
	size, last, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil || last != "LAST" {
		c.t.Errorf("BDAT %s", arg)
		return false
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return false
	}
	return c.taken(string(body))
}

func (c *peerConn) taken(body string) bool {
	c.cur.body = body
	c.mu.Lock()
	c.mails = append(c.mails, c.cur)
	c.mu.Unlock()
	answer := "250 2.0.0 taken"
	if c.lmtp {
		answer = strings.TrimSuffix(strings.Repeat("250 2.1.5 taken\r\n", len(c.cur.to)), "\r\n")
	}
	return c.step(".", "", answer)
}

func (p *peer) got() []mail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]mail(nil), p.mails...)
}

func (p *peer) onWire() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.wire)
}

func (p *peer) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.commands, "\n")
}

func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

// lines makes a multi-line reply of n lines.
func lines(code, n int) string {
	var b strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&b, "%d-line %d\r\n", code, i)
	}
	fmt.Fprintf(&b, "%d end", code)
	return b.String()
}
