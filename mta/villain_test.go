package mta

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// villain is a server in memory that behaves well but at one step of the
// dialogue. It has the names of the steps; peer is for what is done on real
// sockets.
type villain struct {
	t      testing.TB
	lmtp   bool
	offers []string
	login  string      // the mechanism that is offered over TLS
	tls    *tls.Config // STARTTLS is offered if set
	step   string
	do     misdeed
	deny   bool // the recipients of the first message are refused
	wg     sync.WaitGroup

	mu    sync.Mutex
	got   []mail
	conns int
	open  int
}

// misdeed is what the villain does at its step instead of giving the proper
// answer. yes: the server went along with the command; otherwise it did not, or
// nobody will know.
type misdeed func(c *villainConn, line, proper string) (yes, goOn bool)

type villainConn struct {
	*villain
	io.ReadWriteCloser
	raw      *memConn
	in       *bufio.Reader
	secured  bool
	messages int // MAILs heard
	rcpts    int // RCPTs of this one
	inMail   bool
	cur      mail
}

// accept serves one connection and returns our end of it.
func (v *villain) accept() *memConn {
	ours, theirs := memPair()
	v.mu.Lock()
	v.conns++
	v.open++
	n := v.conns
	v.mu.Unlock()
	v.wg.Go(func() {
		c := &villainConn{villain: v, ReadWriteCloser: theirs, raw: theirs, in: bufio.NewReader(theirs), cur: mail{conn: n}}
		c.serve()
		_ = theirs.Close()
		<-ours.shut // it is closed at our end too, sooner or later
		v.mu.Lock()
		defer v.mu.Unlock()
		v.open--
	})
	return ours
}

// at answers properly, or does the misdeed if this is the step.
func (c *villainConn) at(step, line, proper string) (yes, goOn bool) {
	if step == c.step {
		return c.do(c, line, proper)
	}
	return c.code(proper), c.say(proper)
}

func (c *villainConn) say(lines string) bool {
	_, err := io.WriteString(c, lines+"\r\n")
	return err == nil
}

// code reports whether an answer is a yes.
func (c *villainConn) code(answer string) bool { return answer[0] == '2' || answer[0] == '3' }

func (c *villainConn) serve() {
	if _, goOn := c.at("greeting", "", "220 villain.example ESMTP"); !goOn {
		return
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil || !c.handle(strings.TrimRight(line, "\r\n")) {
			return
		}
	}
}

func (c *villainConn) handle(line string) (goOn bool) {
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "EHLO", "LHLO", "HELO":
		return c.hello(verb, line)
	case "STARTTLS":
		yes, goOn := c.at(verb, line, "220 2.0.0 go ahead")
		return goOn && (!yes || c.handshake())
	case "AUTH":
		return c.auth(line)
	case "MAIL":
		return c.begin(line, arg)
	case "RCPT":
		return c.rcpt(line, arg)
	case "DATA":
		return c.data(line)
	case "BDAT":
		return c.bdat(arg)
	case "RSET":
		c.inMail = false
		_, goOn = c.at(verb, line, "250 2.0.0 reset")
	case "QUIT":
		_, _ = c.at(verb, line, "221 2.0.0 bye")
	default:
		goOn = c.say("500 5.5.2 " + line)
	}
	return goOn
}

func (c *villainConn) hello(verb, line string) (goOn bool) {
	offers := append([]string{"villain.example"}, c.offers...)
	step := verb
	switch {
	case c.secured:
		step += " again"
		offers = append(offers, "AUTH "+c.login)
	case c.tls != nil:
		offers = append(offers, "STARTTLS")
	}
	if verb == "HELO" {
		offers = offers[:1]
	}
	for i, o := range offers[:len(offers)-1] {
		offers[i] = "250-" + o
	}
	offers[len(offers)-1] = "250 " + offers[len(offers)-1]
	_, goOn = c.at(step, line, strings.Join(offers, "\r\n"))
	return goOn
}

func (c *villainConn) auth(line string) bool {
	if line != "AUTH LOGIN" {
		_, goOn := c.at("AUTH PLAIN", line, "235 2.7.0 welcome")
		return goOn
	}
	for _, q := range []struct{ step, answer string }{
		{"AUTH LOGIN", "334 VXNlcm5hbWU6"}, {"user name", "334 UGFzc3dvcmQ6"}, {"password", "235 2.7.0 welcome"},
	} {
		yes, goOn := c.at(q.step, line, q.answer)
		if !yes || !goOn || q.step == "password" {
			return goOn
		}
		var err error
		if line, err = c.in.ReadString('\n'); err != nil {
			return false
		}
		line = strings.TrimRight(line, "\r\n")
	}
	return true
}

func (c *villainConn) handshake() bool {
	if c.step == "handshake" {
		if _, err := c.in.Peek(5); err == nil {
			_, _ = c.do(c, "hello", "250 hello")
		}
		return false
	}
	conn := tls.Server(handshakeConn{c.raw, c.in}, c.tls)
	if conn.Handshake() != nil {
		return false
	}
	c.ReadWriteCloser, c.in, c.secured = conn, bufio.NewReader(conn), true
	return true
}

// handshakeConn reads on where the dialogue in clear ended.
type handshakeConn struct {
	*memConn
	in io.Reader
}

// Read implements net.Conn.
func (c handshakeConn) Read(b []byte) (int, error) { return c.in.Read(b) }

func (c *villainConn) begin(line, arg string) bool {
	c.messages++
	c.rcpts, c.cur = 0, mail{from: arg, secured: c.secured, conn: c.cur.conn}
	step := "MAIL"
	if c.messages > 1 {
		step = "MAIL again"
	}
	yes, goOn := c.at(step, line, "250 2.1.0 ok")
	c.inMail = yes
	return goOn
}

func (c *villainConn) rcpt(line, arg string) bool {
	c.rcpts++
	if !c.inMail {
		return c.say("503 5.5.1 MAIL first")
	}
	if c.deny && c.messages == 1 && c.cur.conn == 1 {
		return c.say("550 5.1.1 nobody")
	}
	step := ""
	if c.messages == 1 {
		step = "RCPT " + strconv.Itoa(c.rcpts)
	}
	yes, goOn := c.at(step, line, "250 2.1.5 ok")
	if yes {
		c.cur.to = append(c.cur.to, arg)
	}
	return goOn
}

func (c *villainConn) data(line string) bool {
	if len(c.cur.to) == 0 || !c.inMail {
		return c.say("503 5.5.1 RCPT first")
	}
	if yes, goOn := c.at("DATA", line, "354 go"); !goOn || !yes {
		return goOn
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			return c.end()
		}
		c.cur.body += strings.TrimPrefix(line, ".")
	}
}

func (c *villainConn) bdat(arg string) bool {
	size, last, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil {
		return c.say("501 5.5.4 how much?")
	}
	chunk := make([]byte, n)
	if _, err := io.ReadFull(c.in, chunk); err != nil {
		return false
	}
	if len(c.cur.to) == 0 || !c.inMail {
		return c.say("503 5.5.1 RCPT first")
	}
	c.cur.body += string(chunk)
	if strings.ToUpper(last) != "LAST" {
		return c.say("250 2.0.0 more")
	}
	return c.end()
}

// end answers the end of the message, once or for each recipient, and keeps the
// message for those whose answer was a yes.
func (c *villainConn) end() bool {
	c.inMail = false
	if !c.lmtp {
		yes, goOn := c.at("end", ".", "250 2.0.0 taken")
		if yes {
			c.keep(c.cur.to)
		}
		return goOn
	}
	for i, to := range c.cur.to {
		yes, goOn := c.at(fmt.Sprintf("end %d", i+1), ".", "250 2.1.5 taken")
		if yes {
			c.keep([]string{to})
		}
		if !goOn {
			return false
		}
	}
	return true
}

func (c *villainConn) keep(to []string) {
	c.villain.mu.Lock()
	defer c.villain.mu.Unlock()
	m := c.cur
	m.to = to
	c.villain.got = append(c.villain.got, m)
}
