package config

import (
	"strings"
	"time"
)

// day is the unit of the longer defaults.
const day = 24 * time.Hour

// defaults is the configuration that an empty text means.
func defaults() *Config {
	return &Config{
		Queue: Queue{TTL: 4 * day},
		SMTP: SMTP{
			MaxMails: 100, MaxRcpt: 1000, MaxConnections: 1000, MaxErrors: 20,
			MaxMessageSize: 35 << 20, SubAddrDelim: "+", MaxPriority: 9, FutureRelease: 7 * day,
		},
		SRS:    SRS{TTL: 4 * day},
		MTA:    MTA{MaxDeferred: 100},
		Bounce: Bounce{WarnIntervals: []time.Duration{4 * time.Hour}},
		Where:  make(map[string]Pos),
	}
}

// queue reads one of the `queue` directives.
func (p *parser) queue(pos Pos) *Error {
	if p.cfg.Queue.Pos == (Pos{}) {
		p.cfg.Queue.Pos = pos
	}
	switch {
	case p.accept("compression"):
		p.cfg.Where["queue compression"] = pos
		p.cfg.Queue.Compression = true
		return nil
	case p.accept("encryption"):
		p.cfg.Where["queue encryption"] = pos
		return p.queueEncryption()
	case p.accept("ttl"):
		p.cfg.Where["queue ttl"] = pos
		ttl, err := p.delay(time.Second)
		p.cfg.Queue.TTL = ttl
		return err
	case p.accept("retry"):
		p.cfg.Where["queue retry"] = pos
		retry, err := p.delays(64)
		p.cfg.Queue.Retry = retry
		return err
	}
	return p.queueStore(pos)
}

// queueEncryption reads the file of keys. What OpenSMTPD has instead, a key of 32
// characters, "stdin", "-" or nothing, is understood, and refused later: a key that
// stands here every process would have, and nobody is there to type one in.
func (p *parser) queueEncryption() *Error {
	if !p.isStr() {
		return nil
	}
	pos := p.tok.pos
	path, err := p.str("file of keys")
	if err != nil {
		return err
	}
	if path == "-" || strings.EqualFold(path, "stdin") || !strings.HasPrefix(path, "/") && len(path) == 32 {
		return nil
	}
	if !strings.HasPrefix(path, "/") || hasControl(path) {
		return errorAt(pos, "expected an absolute path: file of keys")
	}
	p.cfg.Queue.Encryption = path
	p.cfg.Queue.ReadOnly = p.accept("read-only")
	return nil
}

// queueStore reads sqlite:PATH or postgres://...
func (p *parser) queueStore(pos Pos) *Error {
	at := p.tok.pos
	words := []string{"sqlite:/path", "postgres://...", "compression", "encryption", "retry", "ttl"}
	if !p.isStr() {
		return p.unexpected(words...)
	}
	source, err := p.str("where the queue is")
	if err != nil {
		return err
	}
	path, isSQLite := strings.CutPrefix(source, "sqlite:")
	isPostgres := strings.HasPrefix(source, "postgres://") || strings.HasPrefix(source, "postgresql://")
	switch {
	case hasControl(source) || !isSQLite && !isPostgres:
		return errorAt(at, "unknown kind of queue %q; expected one of %s", source, listWords(words))
	case isSQLite && !strings.HasPrefix(path, "/"):
		return errorAt(at, "%q; expected an absolute path: sqlite:/path", source)
	case isSQLite:
		p.cfg.Queue.Driver, p.cfg.Queue.Source = "sqlite", path
	default:
		p.cfg.Queue.Driver, p.cfg.Queue.Source = "postgres", source
	}
	p.cfg.Where["queue "+p.cfg.Queue.Driver] = pos
	return p.once("queue store", pos)
}

// smtp reads one of the `smtp` directives.
func (p *parser) smtp(pos Pos) *Error {
	word, err := p.oneOf("bare-newline", "ciphers", "future-release", "limit", "max-message-size", "max-priority", "sub-addr-delim")
	if err != nil {
		return err
	}
	p.cfg.Where["smtp "+word] = pos
	switch word {
	case "bare-newline":
		word, err = p.oneOf("normalize", "reject")
		p.cfg.SMTP.NormalizeBareNewline = word == "normalize"
	case "ciphers":
		return p.ciphers(&p.cfg.SMTP.Ciphers)
	case "future-release":
		p.cfg.SMTP.FutureRelease, err = p.delay(0)
	case "limit":
		return p.smtpLimits()
	case "max-message-size":
		p.cfg.SMTP.MaxMessageSize, err = p.size()
	case "max-priority":
		p.cfg.SMTP.MaxPriority, err = p.count(0, 9)
	case "sub-addr-delim":
		return p.subAddrDelim()
	}
	return err
}

func (p *parser) smtpLimits() *Error {
	fields := map[string]*int{
		"max-mails": &p.cfg.SMTP.MaxMails, "max-rcpt": &p.cfg.SMTP.MaxRcpt,
		"max-connections": &p.cfg.SMTP.MaxConnections, "max-errors": &p.cfg.SMTP.MaxErrors,
	}
	for p.tok.kind != tokNewline && p.tok.kind != tokEOF {
		key, err := p.oneOf(smtpLimitWords()...)
		if err != nil {
			return err
		}
		if *fields[key], err = p.count(1, maxLimit); err != nil {
			return err
		}
	}
	return nil
}

func smtpLimitWords() []string {
	return []string{"max-mails", "max-rcpt", "max-connections", "max-errors"}
}

func (p *parser) subAddrDelim() *Error {
	at := p.tok.pos
	if err := p.into(&p.cfg.SMTP.SubAddrDelim, "delimiter"); err != nil {
		return err
	}
	d := p.cfg.SMTP.SubAddrDelim
	if len(d) != 1 || d[0] <= ' ' || d[0] >= 0x7f || d == "@" {
		return errorAt(at, "delimiter %q; expected one printable character other than @", d)
	}
	return nil
}
