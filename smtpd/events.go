package smtpd

import (
	"cmp"
	"strconv"
	"strings"

	"tabard/internal/address"
	"tabard/internal/eventlog"
	"tabard/queue"
)

// RecordTo makes the server tell the event log of its sessions, of messages that got
// a 250, and of recipients, senders, messages and logins that were refused. It is to be
// called before Serve.
func (s *Server) RecordTo(r eventlog.Recorder) { s.events = r }

// record tells of the session, which has ended.
func (c *conn) record() {
	if !eventlog.On(c.srv.events) {
		return
	}
	s := c.sess
	e := &eventlog.Session{
		ID: c.id, Direction: eventlog.In, Listener: c.ln.Name, Peer: c.peer.text(), Name: c.peer.name, Helo: s.helo,
		Login: s.user, Began: c.began, Messages: int64(s.mails), Reason: c.reason,
	}
	if c.tls != nil {
		e.TLS, e.Verdict = cipherText(c.tls.ConnectionState()), s.cert.verdict.State.String()
		e.Identity = cmp.Or(s.cert.verdict.Identity, s.cert.verdict.Reason)
	}
	c.srv.events.Record(e)
}

// record tells of a message that is in the queue.
func (m *incoming) record(sub *queue.Submission) {
	srv := m.s.srv
	if !eventlog.On(srv.events) {
		return
	}
	id := m.head.id()
	if id == "" && m.head.submission {
		id = m.idText + "@" + m.s.c.hostname()
	}
	srv.events.Record(&eventlog.Message{
		Head: eventlog.Head{At: m.created}, ID: m.idText, Session: m.s.c.id, Sender: sub.Message.Sender, Size: sub.Message.Size,
		Recipients: int64(len(m.tx.rcpts)), HeaderID: id, Protocol: m.s.protocol(m.tx), Login: sub.Message.User, Peer: sub.Message.Remote,
	})
}

// recordRefusal tells of a refused MAIL, RCPT, message or login, by its reply, the login with
// its user. Other commands are about no mail.
func (c *conn) recordRefusal(line string) {
	if !eventlog.On(c.srv.events) {
		return
	}
	r := &eventlog.Result{Result: eventlog.Rejected, Text: line}
	r.Session = c.id
	switch c.verb {
	case verbMail:
		r.Sender = argument(c.command, "FROM:")
	case verbRcpt:
		r.Address = argument(c.command, "TO:")
		fallthrough
	case verbData, verbBdat:
		if tx := c.sess.tx; tx != nil {
			r.Sender = tx.sender
			if c.verb != verbRcpt && len(tx.rcpts) == 1 {
				r.Address = tx.rcpts[0]
			}
		}
	case verbAuth:
	default:
		return
	}
	r.Code, r.Status, r.Text = splitReply(line)
	if user := c.sess.refused; c.verb == verbAuth && user != "" {
		c.sess.refused = ""
		r.Text += ": " + address.OneLine(user, 255)
	}
	c.srv.events.Record(r)
}

// splitReply takes the codes off a reply.
func splitReply(line string) (code int64, status, text string) {
	first, rest, _ := strings.Cut(line, " ")
	code, _ = strconv.ParseInt(first, 10, 64) // made by us
	status, text, _ = strings.Cut(rest, " ")
	if strings.Count(status, ".") != 2 {
		return code, "", rest
	}
	return code, status, text
}

// argument is the address in a command as it was given, for people: the command was
// refused, perhaps for that.
func argument(command []byte, word string) string {
	_, _, arg := splitCommand(command)
	if len(arg) < len(word) || !strings.EqualFold(arg[:len(word)], word) {
		return ""
	}
	arg = strings.TrimSpace(arg[len(word):])
	if inner, ok := strings.CutPrefix(arg, "<"); ok {
		arg, _, _ = strings.Cut(inner, ">")
	} else {
		arg, _, _ = strings.Cut(arg, " ")
	}
	return address.OneLine(arg, 320)
}
