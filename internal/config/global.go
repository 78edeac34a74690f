package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/internal/srs"
)

// once notes where a global directive stands, which may be given one time only.
func (p *parser) once(word string, pos Pos) *Error {
	if old, ok := p.cfg.Where[word]; ok {
		return errorAt(pos, "%s was already given at %s", word, old)
	}
	p.cfg.Where[word] = pos
	return nil
}

// hostName takes the name of a host, or an address literal.
func (p *parser) hostName(to *string) *Error {
	pos := p.tok.pos
	if err := p.name(to, "host name"); err != nil {
		return err
	}
	if err := address.CheckDomain(*to); err != nil {
		return errorAt(pos, "host name %q: %v", *to, err)
	}
	return nil
}

func (p *parser) admd(pos Pos) *Error {
	p.cfg.Where["admd"] = pos
	return p.name(&p.cfg.ADMD, "name of an administrative domain")
}

func (p *parser) hostname(pos Pos) *Error {
	if err := p.once("hostname", pos); err != nil {
		return err
	}
	return p.hostName(&p.cfg.Hostname)
}

func (p *parser) control(pos Pos) *Error {
	if err := p.once("control", pos); err != nil {
		return err
	}
	return p.absPath(&p.cfg.Control, "control socket")
}

// custody reads `custody master-key FILE` and `custody passphrases FILE`.
func (p *parser) custody(pos Pos) *Error {
	word, err := p.oneOf("master-key", "passphrases")
	if err != nil {
		return err
	}
	if err := p.once("custody "+word, pos); err != nil {
		return err
	}
	if word == "master-key" {
		return p.absPath(&p.cfg.Custody.MasterKey, "file of master keys")
	}
	return p.absPath(&p.cfg.Custody.Passphrases, "file of passphrases")
}

// logSQL reads `log sql <table> [keep DELAY] [max-size SIZE] [stages]`.
func (p *parser) logSQL(pos Pos) *Error {
	if err := p.keyword("sql"); err != nil {
		return err
	}
	if err := p.once("log sql", pos); err != nil {
		return err
	}
	if err := p.tableRef(&p.cfg.LogSQL.Table, "log sql", shapeDynamic); err != nil {
		return err
	}
	return parseOptions(p, &p.cfg.LogSQL, []option[LogSQL]{
		{word: "stages", parse: func(_ *parser, l *LogSQL) *Error {
			l.Stages = true
			return nil
		}},
		{word: "keep", parse: func(p *parser, l *LogSQL) (err *Error) {
			l.Keep, err = p.delay(time.Hour)
			return err
		}},
		{word: "max-size", parse: func(p *parser, l *LogSQL) (err *Error) {
			pos := p.tok.pos
			if l.MaxSize, err = p.size(); err == nil && l.MaxSize < minLog {
				err = errorAt(pos, "an event log of %d bytes is too small; expected at least %d", l.MaxSize, minLog)
			}
			return err
		}},
	})
}

// minLog is the smallest bound of an event log, in bytes.
const minLog = 1 << 20

func (p *parser) sandbox(pos Pos) *Error {
	if err := p.once("sandbox", pos); err != nil {
		return err
	}
	word, err := p.oneOf("require", "best-effort", "off")
	p.cfg.Sandbox = word
	return err
}

// metrics reads ADDRESS:PORT. Who asks need not say who it is, so the address is one
// that only this machine reaches; what is to be seen elsewhere a proxy can show.
func (p *parser) metrics(pos Pos) *Error {
	if err := p.once("metrics", pos); err != nil {
		return err
	}
	at := p.tok.pos
	if err := p.name(&p.cfg.Metrics, "address:port"); err != nil {
		return err
	}
	host, port, err := splitHostPort(p.cfg.Metrics)
	if err != nil || port == "" {
		return errorAt(at, "%q; expected address:port", p.cfg.Metrics)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return errorAt(at, "%q; expected an address of this machine alone: 127.0.0.1, [::1] or localhost", p.cfg.Metrics)
	}
	p.cfg.Metrics = net.JoinHostPort(host, port)
	return nil
}

// resolver reads ADDRESS[:PORT]; several directives add up.
func (p *parser) resolver(Pos) *Error {
	at := p.tok.pos
	var s string
	if err := p.name(&s, "IP address of a DNS server"); err != nil {
		return err
	}
	addr, ok := parseResolver(s)
	if !ok {
		return errorAt(at, "%q; expected an IP address, with [brackets] and :port when it needs them", s)
	}
	p.cfg.Resolvers = append(p.cfg.Resolvers, addr.String())
	return nil
}

func parseResolver(s string) (netip.AddrPort, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap, ap.Port() != 0
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		s = strings.TrimSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(s)
	return netip.AddrPortFrom(a, 53), err == nil
}

// process reads `process NAME user USER [group GROUP] [chroot DIR]`.
func (p *parser) process(pos Pos) *Error {
	name, err := p.processName()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(p.cfg.Processes, func(o Process) bool { return o.Name == name }) {
		return errorAt(pos, "process %s was already given", name)
	}
	var r Proc
	if err := parseOptions(p, &r, procOptions()); err != nil {
		return err
	}
	if r.User == "" {
		return p.unexpected("user NAME")
	}
	p.cfg.Processes = append(p.cfg.Processes, Process{Pos: pos, Name: name, User: r.User, Group: r.Group, Chroot: r.Chroot})
	return nil
}

// processName reads the name of one of Tabard's processes; "queue" and "mta" are
// reserved words and may stand here unquoted all the same, as may "metrics".
func (p *parser) processName() (string, *Error) {
	return p.oneOf("deliver", "lookup", "metrics", "mta", "queue", "smtpd")
}

// bounce reads `bounce warn-interval d[, d]...`.
func (p *parser) bounce(pos Pos) (err *Error) {
	p.cfg.Where["bounce"] = pos
	if err := p.keyword("warn-interval"); err != nil {
		return err
	}
	p.cfg.Bounce.WarnIntervals, err = p.delays(4)
	return err
}

// mda reads `mda limit ...` or `mda wrapper NAME "command"`.
func (p *parser) mda(pos Pos) *Error {
	word, err := p.oneOf("limit", "wrapper")
	if err != nil {
		return err
	}
	if word == "limit" {
		p.cfg.Where["mda limit"] = pos
		return p.limits(&p.cfg.MDA.Limits, "max-session", "max-session-per-user", "task-hiwat", "task-lowat", "task-release")
	}
	w := Wrapper{Pos: pos}
	at := p.tok.pos
	if err := p.name(&w.Name, "name of an mda wrapper"); err != nil {
		return err
	}
	if slices.ContainsFunc(p.cfg.Wrappers, func(o Wrapper) bool { return o.Name == w.Name }) {
		return errorAt(at, "mda wrapper %q was already declared", w.Name)
	}
	if err := p.template(&w.Command, "command"); err != nil {
		return err
	}
	p.cfg.Wrappers = append(p.cfg.Wrappers, w)
	return nil
}

// scheduler reads `scheduler limit KEY N ...`.
func (p *parser) scheduler(pos Pos) *Error {
	if err := p.keyword("limit"); err != nil {
		return err
	}
	p.cfg.Where["scheduler limit"] = pos
	return p.limits(&p.cfg.Scheduler.Limits, "max-evp-batch-size", "max-inflight", "max-msg-batch-size", "max-schedule")
}

// limits reads any number of KEY N.
func (p *parser) limits(to *[]KeyVal, keys ...string) *Error {
	for p.tok.kind != tokNewline && p.tok.kind != tokEOF {
		key, err := p.oneOf(keys...)
		if err != nil {
			return err
		}
		n, err := p.count(0, maxLimit)
		if err != nil {
			return err
		}
		*to = append(*to, KeyVal{key, strconv.Itoa(n)})
	}
	return nil
}

// maxLimit is the greatest value of any limit.
const maxLimit = 1<<31 - 1

// srs reads `srs key SECRET`, `srs key backup SECRET` or `srs ttl DELAY`.
func (p *parser) srs(pos Pos) *Error {
	p.cfg.Where["srs"] = pos
	word, err := p.oneOf("key", "ttl")
	if err != nil {
		return err
	}
	switch {
	case word == "ttl":
		return p.srsTTL()
	case p.accept("backup"):
		return p.srsKey(&p.cfg.SRS.Backup)
	}
	return p.srsKey(&p.cfg.SRS.Key)
}

// srsTTL reads how long rewritten addresses hold. Their stamp counts days, and
// begins anew after some.
func (p *parser) srsTTL() (err *Error) {
	at := p.tok.pos
	if p.cfg.SRS.TTL, err = p.delay(day); err == nil && p.cfg.SRS.TTL > srs.MaxTTL {
		return errorAt(at, "rewritten addresses cannot hold for more than %d days", srs.MaxTTL/day)
	}
	return err
}

// srsKey reads a secret, or file:/path.
func (p *parser) srsKey(to *string) *Error {
	at := p.tok.pos
	if err := p.into(to, "secret, or file:/path"); err != nil {
		return err
	}
	if path, isFile := strings.CutPrefix(*to, "file:"); isFile && !strings.HasPrefix(path, "/") {
		return errorAt(at, "%q; expected an absolute path: file:/path", *to)
	}
	return nil
}
