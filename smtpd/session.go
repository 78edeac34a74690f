package smtpd

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/lookup"
	"tabard/queue"
)

// session is the state of one SMTP session. go-smtp calls it for commands that
// dispatch let through.
type session struct {
	c        *conn
	srv      *Server
	helo     string     // empty until the client has said who it is, and again after STARTTLS
	extended bool       // EHLO
	user     string     // authenticated, by AUTH or by certificate
	cert     clientCert // of the client
	mails    int        // messages accepted
	failures int        // of AUTH
	refused  string     // user of the AUTH command in hand, if it failed
	tx       *transaction
	wishes   wishes // of the MAIL command in hand

	authenticated bool // by AUTH
	byPassword    bool // which outlives the certificate
}

var _ smtp.AuthSession = (*session)(nil)

// transaction is one message's envelope so far (RFC 5321 section 3.3).
type transaction struct {
	sender    string
	options   smtp.MailOptions
	wishes    wishes
	rcpts     []string // accepted, as given
	envelopes []queue.Envelope
	seen      map[queue.Envelope]bool // envelopes without Recipient, from the second on
	refused   int                     // recipients
	msg       *incoming               // a BDAT transfer is under way
	ahead     *ahead                  // nil: nothing was asked ahead of its turn
	began     time.Time
	spent     queue.Times
}

// Reset forgets the transaction.
func (s *session) Reset() {
	if s.tx != nil && s.tx.msg != nil {
		s.tx.msg.abort()
	}
	if s.tx != nil {
		s.tx.dropAhead()
	}
	s.tx = nil
}

// Logout ends the session.
func (s *session) Logout() error {
	s.Reset()
	return nil
}

// Mail begins a transaction.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	began := time.Now()
	growStack()
	if e := s.mayMail(); e != nil {
		return e
	}
	if opts.RequireTLS && s.c.tls == nil {
		return refuse(530, smtp.EnhancedCode{5, 7, 10}, "REQUIRETLS needs TLS first")
	}
	sender := ""
	if from != "" {
		var e *smtp.SMTPError
		if sender, e = mailbox(from, opts.UTF8, smtp.EnhancedCode{5, 1, 7}); e != nil {
			return e
		}
	}
	if !oneLine(opts.EnvelopeID) {
		return refuse(501, smtp.EnhancedCode{5, 5, 4}, "Malformed ENVID parameter value")
	}
	if e := s.maySendAs(sender); e != nil {
		return e
	}
	s.tx = &transaction{sender: sender, options: *opts, began: began, wishes: s.wishes}
	return nil
}

// mayMail applies what the listener demands before MAIL.
func (s *session) mayMail() *smtp.SMTPError {
	ln := s.c.ln
	switch {
	case ln.TLS == config.TLSRequire && s.c.tls == nil:
		return refuse(530, smtp.EnhancedCode{5, 7, 0}, "Must issue a STARTTLS command first")
	}
	if e := s.stillIdentified(); e != nil {
		return e
	}
	switch {
	case ln.Verify == config.VerifyRequire && s.c.tls != nil && s.cert.verdict.State != lookup.Verified:
		return refuse(550, smtp.EnhancedCode{5, 7, 1}, strings.TrimSpace("Client certificate "+s.cert.verdict.State.String()+" "+s.cert.verdict.Reason))
	case ln.Auth == config.AuthRequire && s.user == "":
		return refuse(530, smtp.EnhancedCode{5, 7, 0}, "Must issue an AUTH command first")
	case s.mails >= s.srv.cfg.MaxMails:
		return refuse(452, smtp.EnhancedCode{4, 3, 2}, "Too many messages sent")
	}
	if err := s.srv.queue.Accepting(); err != nil {
		s.c.warn("smtp queue takes no mail", slog.String("error", address.OneLine(err.Error(), 512)))
		return refuse(451, smtp.EnhancedCode{4, 3, 0}, "The mail queue is out of order, try again later")
	}
	return nil
}

// maySendAs asks about the reverse-path of an authenticated user, the null one
// included.
func (s *session) maySendAs(sender string) *smtp.SMTPError {
	if s.user == "" || !s.c.ln.HasSenders {
		return nil
	}
	ctx, cancel := s.asking()
	defer cancel()
	r, err := s.srv.lookup.Sender(ctx, lookup.SenderRequest{Listener: s.c.ln.Index, User: s.user, Sender: sender})
	if err != nil {
		return s.tempfail("sender", sender, err)
	}
	if !r.Allowed {
		return refuse(550, smtp.EnhancedCode{5, 7, 1}, "Sender rejected: <"+sender+">")
	}
	return nil
}

// Rcpt asks lookup where a recipient's mail goes.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	tx := s.tx
	if tx == nil {
		return refuse(503, smtp.EnhancedCode{5, 5, 1}, "Need MAIL before RCPT")
	}
	e := s.rcpt(tx, to, opts)
	if e == nil {
		return nil
	}
	tx.refused++
	return e
}

func (s *session) rcpt(tx *transaction, to string, opts *smtp.RcptOptions) *smtp.SMTPError {
	rcpt, e := mailbox(to, tx.options.UTF8, smtp.EnhancedCode{5, 1, 3})
	if e != nil {
		return e
	}
	if !oneLine(opts.OriginalRecipient) {
		return refuse(501, smtp.EnhancedCode{5, 5, 4}, "Malformed ORCPT parameter value")
	}
	r, err := s.recipient(tx, rcpt)
	switch {
	case err != nil:
		return s.tempfail("recipient", rcpt, err)
	case r.Code != 0:
		return refusal(r)
	case len(r.Targets) == 0:
		return s.tempfail("recipient", rcpt, errors.New("no target and no refusal"))
	case len(tx.envelopes)+len(r.Targets) > s.srv.cfg.maxEnvelopes():
		return refuse(452, smtp.EnhancedCode{4, 5, 3}, "Too many recipients")
	}
	tx.rcpts = append(tx.rcpts, rcpt)
	tx.spent[queue.StepMatch] += r.Match
	tx.spent[queue.StepExpand] += r.Expand
	tx.add(rcpt, r.Targets, opts)
	return nil
}

// recipient asks lookup, unless that was done ahead of time.
func (s *session) recipient(tx *transaction, rcpt string) (lookup.RecipientReply, error) {
	if a, ok := tx.takeAhead(rcpt); ok {
		return a.reply, a.err
	}
	s.lookAhead(tx)
	ctx, cancel := s.asking()
	defer cancel()
	return s.srv.lookup.Recipient(ctx, lookup.RecipientRequest{Session: s.facts(), Sender: tx.sender, Recipient: rcpt})
}

// maxEnvelopes bounds what aliases can make of one message's recipients.
func (c *Config) maxEnvelopes() int { return min(10*c.MaxRcpt+1000, queue.MaxRecipients) }

// add makes envelopes of targets. A target that is there already, with the same
// DSN parameters, gets one copy.
func (tx *transaction) add(rcpt string, targets []lookup.Target, opts *smtp.RcptOptions) {
	notify, orcpt := notifyText(opts.Notify), ""
	if opts.OriginalRecipient != "" {
		orcpt = strings.ToLower(string(opts.OriginalRecipientType)) + ";" + opts.OriginalRecipient
	}
	for _, t := range targets {
		e := queue.Envelope{
			Address: t.Address, Recipient: rcpt, ORCPT: orcpt, Notify: notify,
			Action: t.Action, Relay: t.Relay, User: t.User,
		}
		if tx.first(e) {
			tx.envelopes = append(tx.envelopes, e)
		}
	}
}

// first reports whether no envelope goes where e goes. Most messages have one
// envelope and need no map for it.
func (tx *transaction) first(e queue.Envelope) bool {
	if len(tx.envelopes) == 0 {
		return true
	}
	if tx.seen == nil {
		only := tx.envelopes[0]
		only.Recipient = ""
		tx.seen = map[queue.Envelope]bool{only: true}
	}
	e.Recipient = ""
	if tx.seen[e] {
		return false
	}
	tx.seen[e] = true
	return true
}

func notifyText(values []smtp.DSNNotify) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	return strings.Join(words, ",")
}

// refusal passes lookup's answer on. An answer that is no refusal is a fault.
func refusal(r lookup.RecipientReply) *smtp.SMTPError {
	if r.Code < 400 || r.Code > 599 {
		return refuse(451, smtp.EnhancedCode{4, 3, 0}, "Temporary failure")
	}
	return refuse(r.Code, enhancedCode(r.Enhanced, r.Code/100), r.Text)
}

// enhancedCode reads "5.1.1"; what does not fit the reply's class becomes
// class.0.0.
func enhancedCode(s string, class int) smtp.EnhancedCode {
	parts := strings.Split(s, ".")
	out := smtp.EnhancedCode{class, 0, 0}
	if len(parts) != 3 || parts[0] != strconv.Itoa(class) {
		return out
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 || n > 999 {
			return smtp.EnhancedCode{class, 0, 0}
		}
		out[i] = n
	}
	return out
}

// tempfail logs why something could not be answered, and defers.
func (s *session) tempfail(what, subject string, err error) *smtp.SMTPError {
	s.c.warn("smtp lookup failed", slog.String("question", what), slog.String("key", address.OneLine(subject, 320)),
		slog.String("error", err.Error()))
	return refuse(451, smtp.EnhancedCode{4, 3, 0}, "Temporary failure: <"+subject+">")
}

// facts is what lookup may base its decision on.
func (s *session) facts() lookup.Session {
	c := s.c
	return lookup.Session{
		ID: c.id, Listener: c.ln.Index, Socket: c.peer.socket, Remote: c.peer.remote.Addr(), RDNS: c.rdns(),
		Helo: s.helo, TLS: c.tls != nil, Peer: s.cert.verdict, User: s.user,
	}
}

// asking bounds one question to lookup.
func (s *session) asking() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.c.ctx, s.srv.cfg.Timeouts.Lookup)
}

// mailbox checks an address as go-smtp gives it, without its quotes, and
// returns it in the form to keep.
func mailbox(given string, utf8 bool, enhanced smtp.EnhancedCode) (string, *smtp.SMTPError) {
	local, domain := address.Split(given)
	text := address.Address{Local: local, Domain: domain}.String()
	if !utf8 && !address.ASCII(text) {
		return "", refuse(553, smtp.EnhancedCode{5, 6, 7}, "Address is not ASCII and SMTPUTF8 was not given")
	}
	if _, err := address.Parse(text); err != nil {
		return "", refuse(553, enhanced, "Address syntax: "+err.Error())
	}
	return text, nil
}

// oneLine reports whether a DSN parameter is safe to keep.
func oneLine(s string) bool { return address.OneLine(s, len(s)+4) == s }
