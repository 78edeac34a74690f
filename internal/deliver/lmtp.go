package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"tabard/internal/address"
	"tabard/queue"
)

// lmtpPort is used when a destination names none, as mail.lmtp does.
const lmtpPort = "25"

// lmtpDeliver hands the message to an LMTP server (RFC 2033). A connection that
// was kept and turns out to be dead is replaced once.
func (a *agent) lmtpDeliver(ctx context.Context, p *parcel) status {
	network, addr, err := lmtpAddress(p.how.LMTP)
	if err != nil {
		return failed("5.3.5", "lmtp: %v", err)
	}
	for {
		c, err := a.lmtp.get(ctx, network, addr)
		if err != nil {
			return lmtpStatus(ctx, addr, err)
		}
		end := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
		text, stale, err := c.transact(ctx, p)
		end()
		a.lmtp.put(c, err)
		if c.used && stale && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return lmtpStatus(ctx, addr, err)
		}
		return lmtpAccepted(addr, text)
	}
}

// lmtpAddress reads "host:port", "host", "[v6]:port" or the path of a socket.
func lmtpAddress(s string) (network, addr string, err error) {
	if path := strings.TrimPrefix(s, "unix:"); strings.HasPrefix(path, "/") {
		return "unix", path, nil
	}
	if _, _, err := net.SplitHostPort(s); err == nil {
		return "tcp", s, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if host == "" {
		return "", "", fmt.Errorf("bad destination %q", s)
	}
	return "tcp", net.JoinHostPort(host, lmtpPort), nil
}

// transact sends the message for one recipient. stale says that the connection
// was at its end before anything was said about the message.
func (c *lmtpConn) transact(ctx context.Context, p *parcel) (text string, stale bool, err error) {
	rcpt := p.how.User
	if p.how.RcptTo {
		rcpt = p.env.Address
	}
	if oneLineAddress(rcpt) != rcpt || oneLineAddress(p.msg.Sender) != p.msg.Sender {
		return "", false, refusal{failed("5.1.3", "lmtp: an address holds control characters")}
	}
	opts := &smtp.MailOptions{Size: p.msg.Size}
	if !address.ASCII(p.msg.Sender) || !address.ASCII(rcpt) {
		if ok, _ := c.client.Extension("SMTPUTF8"); !ok {
			return "", false, refusal{failed("5.6.7", "lmtp: the server does not take addresses in UTF-8")}
		}
		opts.UTF8 = true
	}
	if err := c.client.Mail(p.msg.Sender, opts); err != nil {
		return "", !isReply(err) || isClosing(err), err
	}
	if err := c.client.Rcpt(rcpt, nil); err != nil {
		return "", false, err
	}
	w, err := c.client.Data()
	if err != nil {
		return "", false, err
	}
	if _, err := io.Copy(w, p.body.reader(ctx)); err != nil {
		// The end of data is never sent, so the server keeps nothing.
		return "", false, errors.Join(err, errBroken)
	}
	replies, err := w.CloseWithLMTPResponse()
	if err != nil {
		return "", false, recipientError(err, rcpt)
	}
	if r := replies[rcpt]; r != nil {
		return r.StatusText, false, nil
	}
	return "", false, errors.New("no reply for the recipient")
}

// recipientError finds the reply about our recipient.
func recipientError(err error, rcpt string) error {
	if per, ok := errors.AsType[smtp.LMTPDataError](err); ok && per[rcpt] != nil {
		return per[rcpt]
	}
	return err
}

// isReply says whether err is a reply of the server (and the dialogue in order).
func isReply(err error) bool {
	_, ok := errors.AsType[*smtp.SMTPError](err)
	return ok
}

// isClosing says whether the server announces that it closes (RFC 5321 section 3.8).
func isClosing(err error) bool {
	reply, ok := errors.AsType[*smtp.SMTPError](err)
	return ok && reply.Code == 421
}

// lmtpStatus turns the end of a dialogue into a result: 5xx is permanent, 4xx
// and everything that is no reply is temporary.
func lmtpStatus(ctx context.Context, addr string, err error) status {
	if ctx.Err() != nil {
		return status{outcome: queue.Returned}
	}
	if ref, ok := errors.AsType[refusal](err); ok {
		return ref.st
	}
	if errors.Is(err, errBody) {
		return statusOf(fmt.Errorf("lmtp: %w", err))
	}
	reply, ok := errors.AsType[*smtp.SMTPError](err)
	if !ok || errors.Is(err, errGreeting) {
		st := deferred("4.4.1", "lmtp %s: %v", addr, err)
		if _, bad := errors.AsType[textproto.ProtocolError](err); bad {
			st.enhanced = "4.5.0"
		}
		return st
	}
	return lmtpRefused(addr, reply)
}

// lmtpRefused is the result of a negative reply.
func lmtpRefused(addr string, reply *smtp.SMTPError) status {
	st := status{outcome: queue.Deferred, code: reply.Code, remote: addr}
	class := byte('4')
	if reply.Code/100 == 5 {
		st.outcome, class = queue.Failed, '5'
	}
	text := reply.Message
	if e := reply.EnhancedCode; e != smtp.EnhancedCodeNotSet {
		text = fmt.Sprintf("%d.%d.%d %s", e[0], e[1], e[2], text)
	}
	st.enhanced, st.text = splitEnhanced(text, class)
	return st
}

// lmtpAccepted is the result of a positive reply.
func lmtpAccepted(addr, text string) status {
	st := status{outcome: queue.Delivered, code: 250, remote: addr}
	if st.enhanced, st.text = splitEnhanced(text, '2'); st.text == "" {
		st.text = "Delivered"
	}
	return st
}

// splitEnhanced takes the status codes (RFC 3463 section 2) off the lines of a
// reply: not every server puts it on each. A code of another class than the
// reply's does not count.
func splitEnhanced(text string, class byte) (enhanced, rest string) {
	enhanced = string(class) + ".0.0"
	found := false
	var lines []string
	for line := range strings.Lines(text) {
		word, after, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !isEnhanced(word) {
			lines = append(lines, line)
			continue
		}
		if !found && word[0] == class {
			enhanced, found = word, true
		}
		lines = append(lines, after+"\n")
	}
	return enhanced, strings.TrimSpace(address.OneLine(strings.Join(lines, ""), maxText))
}

// isEnhanced says whether s is a status code.
func isEnhanced(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("245", parts[0]) {
		return false
	}
	for _, part := range parts[1:] {
		if n, err := strconv.ParseUint(part, 10, 16); err != nil || n > 999 {
			return false
		}
	}
	return true
}
