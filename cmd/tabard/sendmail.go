package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/mail"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/internal/address"
)

// sendmailMaxBytes bounds what sendmail reads; the server has its own limit.
const sendmailMaxBytes = 512 << 20

// sendmailOptions are what the sendmail command line asks for.
type sendmailOptions struct {
	fromHeaders bool   // -t
	ignoreDots  bool   // -i, -oi
	sender      string // -f, -r
	senderSet   bool
	fullName    string // -F
	notify      string // -N
	ret         string // -R
	envID       string // -V
	config      string // -C
	mode        byte   // -b: 'm' deliver, 'p' mailq, 'i' newaliases
	verbose     bool   // -v
	recipients  []string
}

// sendmailMain behaves as sendmail(8) does towards programs: it reads a message
// from standard input and hands it to the running server through its local
// socket. The exit code is one of sysexits(3).
func sendmailMain(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parseSendmail(args)
	if err == nil {
		switch o.mode {
		case 'p':
			return execute(configArgs(o.config, "queue", "ls", "--mailq"), stdin, stdout, stderr)
		case 'i':
			return 0 // aliases are tables, there is nothing to rebuild
		}
		err = o.send(stdin)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "sendmail: %v\n", err)
	}
	return exitCode(err)
}

func configArgs(config string, args ...string) []string {
	if config != "" {
		args = append(args, "-c", config)
	}
	return args
}

// sendmailValueFlags take a value, attached or as the next argument.
const sendmailValueFlags = "fFrNRVCcBhoOpXLA"

// parseSendmail reads sendmail's command line. Options that the field's scripts
// pass and that mean nothing here are accepted.
func parseSendmail(args []string) (o sendmailOptions, err error) {
	o.mode = 'm'
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--config" {
			arg = "-c"
		} else if file, ok := strings.CutPrefix(arg, "--config="); ok {
			arg = "-c" + file
		}
		if arg == "--" {
			o.recipients = append(o.recipients, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			o.recipients = append(o.recipients, arg)
			continue
		}
		flag, value := arg[1], arg[2:]
		if strings.IndexByte(sendmailValueFlags, flag) >= 0 && value == "" {
			if i++; i == len(args) {
				return o, exitf(exUsage, "option -%c needs a value", flag)
			}
			value = args[i]
		}
		if err := o.set(flag, value); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (o *sendmailOptions) set(flag byte, value string) error {
	switch flag {
	case 't':
		o.fromHeaders = true
		if strings.HasPrefix(value, "i") { // -ti
			o.ignoreDots = true
		}
	case 'i':
		o.ignoreDots = true
		if strings.HasPrefix(value, "t") { // -it
			o.fromHeaders = true
		}
	case 'f', 'r':
		o.sender, o.senderSet = strings.Trim(value, "<>"), true
	case 'F':
		o.fullName = value
	case 'N':
		o.notify = strings.ToUpper(value)
	case 'R':
		o.ret = strings.ToUpper(value)
	case 'V':
		o.envID = value
	case 'C', 'c': // c is that of all of Tabard's commands
		o.config = value
	case 'v':
		o.verbose = true
	case 'o':
		if value == "i" {
			o.ignoreDots = true
		}
	case 'b':
		return o.setMode(value)
	case 'B', 'h', 'O', 'p', 'X', 'L', 'A', 'm', 'e', 'E', 'n', 'G', 'U', 'J', 'x':
	default:
		return exitf(exUsage, "unknown option -%c", flag)
	}
	return nil
}

func (o *sendmailOptions) setMode(value string) error {
	switch value {
	case "m", "p", "i":
		o.mode = value[0]
		return nil
	}
	return exitf(exUsage, "mode -b%s is not supported; want -bm, -bp or -bi", value)
}

// send reads the message and submits it.
func (o *sendmailOptions) send(stdin io.Reader) error {
	path := configPath(o.config)
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	host := serverName(cfg, path)
	header, body, err := readMessage(stdin, o.ignoreDots)
	if err != nil {
		return err
	}
	if o.fromHeaders {
		if header, err = o.takeRecipients(header); err != nil {
			return err
		}
	}
	if len(o.recipients) == 0 {
		return exitf(exUsage, "no recipients")
	}
	for i, r := range o.recipients {
		if o.recipients[i], err = complete(r, host); err != nil {
			return exitf(exDataErr, "recipient %q: %w", r, err)
		}
	}
	if !o.senderSet {
		o.sender = loginName()
	}
	if o.sender != "" {
		if o.sender, err = complete(o.sender, host); err != nil {
			return exitf(exDataErr, "sender %q: %w", o.sender, err)
		}
	}
	message := append(o.addFrom(header), "\r\n"...)
	return o.submit(submitSocket(cfg), host, append(message, body...))
}

// complete adds the server's name to a bare user name.
func complete(addr, host string) (string, error) {
	addr = strings.Trim(strings.TrimSpace(addr), "<>")
	if !strings.Contains(addr, "@") {
		addr += "@" + host
	}
	a, err := address.Parse(addr)
	return a.String(), err
}

func loginName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "postmaster"
}

// readMessage reads a message with any line ends and returns header and body
// with CRLF. A lone dot ends it unless ignoreDots.
func readMessage(r io.Reader, ignoreDots bool) (header, body []byte, err error) {
	br := bufio.NewReader(io.LimitReader(r, sendmailMaxBytes+1))
	inBody, first := false, true
	for {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			text := bytes.TrimRight(line, "\r\n")
			if !ignoreDots && string(text) == "." {
				break
			}
			switch {
			case inBody:
				body = append(append(body, text...), "\r\n"...)
			case len(text) == 0:
				inBody = true
			case !isHeaderLine(text, first):
				inBody = true // no header at all, or it ended without a blank line
				body = append(append(body, text...), "\r\n"...)
			default:
				header = append(append(header, text...), "\r\n"...)
				first = false
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, exitf(exIOErr, "reading the message: %w", err)
		}
	}
	if len(header)+len(body) > sendmailMaxBytes {
		return nil, nil, exitf(exDataErr, "message larger than %d bytes", sendmailMaxBytes)
	}
	return header, body, nil
}

// isHeaderLine reports whether a line can belong to a header (RFC 5322 2.2).
func isHeaderLine(line []byte, first bool) bool {
	if line[0] == ' ' || line[0] == '\t' {
		return !first
	}
	name, _, found := bytes.Cut(line, []byte(":"))
	return found && len(name) > 0 && bytes.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// takeRecipients adds the recipients of To, Cc and Bcc, and returns the header
// without Bcc.
func (o *sendmailOptions) takeRecipients(header []byte) ([]byte, error) {
	msg, err := mail.ReadMessage(bytes.NewReader(append(bytes.Clone(header), "\r\n"...)))
	if err != nil {
		return nil, exitf(exDataErr, "header: %w", err)
	}
	for _, field := range []string{"To", "Cc", "Bcc"} {
		for _, text := range msg.Header[field] {
			if strings.TrimSpace(text) == "" {
				continue
			}
			list, err := mail.ParseAddressList(text)
			if err != nil {
				// A bare user name is no address to net/mail, but it is to us.
				for name := range strings.SplitSeq(text, ",") {
					o.recipients = append(o.recipients, strings.TrimSpace(name))
				}
				continue
			}
			for _, a := range list {
				o.recipients = append(o.recipients, a.Address)
			}
		}
	}
	return dropField(header, "bcc"), nil
}

// dropField removes every field called name (lower case), folded lines included.
func dropField(header []byte, name string) []byte {
	var kept []byte
	dropping := false
	for line := range bytes.SplitAfterSeq(header, []byte("\r\n")) {
		if len(line) > 0 && line[0] != ' ' && line[0] != '\t' {
			field, _, _ := bytes.Cut(line, []byte(":"))
			dropping = strings.EqualFold(string(bytes.TrimSpace(field)), name)
		}
		if !dropping {
			kept = append(kept, line...)
		}
	}
	return kept
}

// addFrom adds a From field when there is none. Date and Message-ID are the
// server's to add.
func (o *sendmailOptions) addFrom(header []byte) []byte {
	if len(dropField(header, "from")) != len(header) || o.sender == "" {
		return header
	}
	from := mail.Address{Name: o.fullName, Address: o.sender}
	text := from.String()
	if o.fullName == "" {
		text = o.sender
	} else if !address.ASCII(o.fullName) {
		text = mime.QEncoding.Encode("utf-8", o.fullName) + " <" + o.sender + ">"
	}
	return append([]byte("From: "+text+"\r\n"), header...)
}

// submit hands the message to the server.
func (o *sendmailOptions) submit(socket, host string, message []byte) error {
	conn, err := net.DialTimeout("unix", socket, 10*time.Second)
	if err != nil {
		return exitf(exTempFail, "tabard is not running (%w)", err)
	}
	c := smtp.NewClient(conn)
	defer func() { _ = c.Close() }()
	if o.verbose {
		c.DebugWriter = os.Stderr
	}
	if err := c.Hello(host); err != nil {
		return sendmailError("greeting", err)
	}
	opts := &smtp.MailOptions{Size: int64(len(message)), Return: smtp.DSNReturn(o.ret), EnvelopeID: o.envID}
	for _, a := range append([]string{o.sender}, o.recipients...) {
		opts.UTF8 = opts.UTF8 || !address.ASCII(a)
	}
	if err := c.Mail(o.sender, opts); err != nil {
		return sendmailError("sender "+o.sender, err)
	}
	for _, r := range o.recipients {
		if err := c.Rcpt(r, o.rcptOptions()); err != nil {
			return sendmailError("recipient "+r, err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return sendmailError("message", err)
	}
	if _, err := w.Write(message); err != nil {
		return exitf(exTempFail, "message: %w", err)
	}
	if err := w.Close(); err != nil {
		return sendmailError("message", err)
	}
	_ = c.Quit() // the message is accepted, what follows cannot undo that
	return nil
}

func (o *sendmailOptions) rcptOptions() *smtp.RcptOptions {
	var opts smtp.RcptOptions
	for n := range strings.SplitSeq(o.notify, ",") {
		if n != "" {
			opts.Notify = append(opts.Notify, smtp.DSNNotify(n))
		}
	}
	return &opts
}

// sendmailError turns an SMTP refusal into the exit code for it.
func sendmailError(what string, err error) error {
	var se *smtp.SMTPError
	if !errors.As(err, &se) || se.Temporary() {
		return exitf(exTempFail, "%s: %w", what, err)
	}
	if se.EnhancedCode[1] == 1 {
		return exitf(exNoUser, "%s: %w", what, err)
	}
	return exitf(exUnavailable, "%s: %w", what, err)
}
