package lookup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"tabard/internal/config"
	"tabard/table"
)

// Problem is one finding of Check.
type Problem struct {
	Pos     config.Pos `json:"pos"`             // the directive that needs what is at fault
	Table   string     `json:"table,omitempty"` // empty when no table is concerned
	Service string     `json:"service,omitempty"`
	Cause   string     `json:"cause"`
	Warning bool       `json:"warning"` // it works, but deserves a look
}

// String returns the problem on one line.
func (p Problem) String() string {
	where := ""
	if p.Table != "" {
		where = fmt.Sprintf("table %s: ", p.Table)
	}
	if p.Service != "" {
		where += p.Service + ": "
	}
	return fmt.Sprintf("%s: %s%s", p.Pos, where, p.Cause)
}

// Check asks every table for every service that the configuration uses it for,
// opens every certificate and authority, reads every relay URL that can be
// listed, and returns what it found wrong, in the order of the configuration.
func (s *Service) Check(ctx context.Context) []Problem {
	c := &checking{s: s, done: make(map[asked]bool)}
	c.tables(ctx)
	c.custody()
	for i := range s.cfg.Listeners {
		c.listener(ctx, i, &s.cfg.Listeners[i])
	}
	for i := range s.cfg.Actions {
		c.action(ctx, &s.cfg.Actions[i])
	}
	for i := range s.cfg.Matches {
		c.match(ctx, &s.cfg.Matches[i])
	}
	for _, ca := range s.cfg.CAs {
		t, err := s.caFile(ca.Name)
		if err != nil {
			c.add(Problem{Pos: ca.Pos, Cause: unprefixed(err, ca.Pos)})
			continue
		}
		c.overdue(t, Problem{Pos: ca.Pos, Service: "ca " + ca.Name})
	}
	for _, pki := range s.cfg.PKIs {
		c.keyFile(pki)
	}
	return c.found
}

// checking collects problems.
type checking struct {
	s     *Service
	found []Problem
	done  map[asked]bool
}

// asked is a question that was put to a table once.
type asked struct {
	table   config.TableRef
	service table.Service
}

func (c *checking) add(p Problem) { c.found = append(c.found, p) }

// tables reports those that cannot be reached.
func (c *checking) tables(ctx context.Context) {
	for _, decl := range c.s.cfg.Tables {
		t, err := c.s.tables.get(config.TableRef(decl.Name))
		if err == nil {
			err = t.Ping(ctx)
		}
		if err != nil {
			c.add(Problem{Pos: decl.Pos, Table: decl.Name, Cause: causeOf(err, decl.Name)})
		}
	}
}

// custody reports files of secrets that cannot be used.
func (c *checking) custody() {
	for _, f := range c.s.custody.vault.faults() {
		c.add(Problem{Pos: c.s.cfg.Where["custody "+f.word], Cause: "custody " + f.word + ": " + f.fault.Error()})
	}
	if fault := c.s.srs.check(); fault != nil {
		c.add(Problem{Pos: c.s.cfg.Where["srs"], Cause: "srs key: " + fault.Error()})
	}
}

// use puts a question of a service to a table, once.
func (c *checking) use(ctx context.Context, pos config.Pos, ref config.TableRef, s table.Service) {
	if ref == "" || c.done[asked{ref, s}] {
		return
	}
	c.done[asked{ref, s}] = true
	t, err := c.s.tables.get(ref)
	if err == nil {
		err = probe(ctx, t, s)
	}
	if err == nil {
		err = t.Validate(ctx, s)
	}
	if err != nil {
		c.add(Problem{Pos: pos, Table: string(ref), Service: s.String(), Cause: causeOf(err, string(ref))})
		return
	}
	if s == table.TLSPolicy {
		c.policies(ctx, pos, ref, t)
	}
}

// policies reads the rows of a table whose keys can be listed. Mail for which a row
// cannot be read, or carried out, waits.
func (c *checking) policies(ctx context.Context, pos config.Pos, ref config.TableRef, t *table.Table) {
	keys, err := t.Fetch(ctx, table.TLSPolicy)
	if err != nil {
		return // not of this kind of table
	}
	for _, key := range keys {
		if len(key) == 0 {
			continue
		}
		p, err := t.TLSPolicy(ctx, key[0])
		switch {
		case errors.Is(err, table.ErrNotFound): // gone meanwhile
		case err != nil:
			c.add(Problem{Pos: pos, Table: string(ref), Service: table.TLSPolicy.String(), Cause: causeOf(err, string(ref))})
		case !p.Level.Supported():
			c.add(UnsupportedPolicy(pos, string(ref), key[0], p.Level))
		}
	}
}

// UnsupportedPolicy warns of a row of a tls-policy table whose level is not carried
// out.
func UnsupportedPolicy(pos config.Pos, name, key string, level table.TLSLevel) Problem {
	return Problem{
		Pos: pos, Table: name, Service: table.TLSPolicy.String(), Warning: true,
		Cause: fmt.Sprintf("%.300q: level %s is not supported yet: the mail waits", key, level),
	}
}

// probe asks for a key that nobody has.
func probe(ctx context.Context, t *table.Table, s table.Service) error {
	key := "tabard-check.invalid"
	switch s {
	case table.NetAddr, table.AddrName:
		key = "192.0.2.255" // RFC 5737
	case table.MailAddr:
		key = "tabard-check@tabard-check.invalid"
	}
	var err error
	if table.Walked(s) || s == table.String {
		_, err = t.Check(ctx, s, key)
	} else {
		_, err = t.Lookup(ctx, s, key)
	}
	if errors.Is(err, table.ErrNotFound) {
		return nil
	}
	return err
}

func (c *checking) listener(ctx context.Context, i int, l *config.Listener) {
	if l.Auth != config.AuthNone && l.AuthTable == "" {
		c.add(Problem{Pos: l.Pos, Cause: "not supported yet: auth by system accounts; give auth a table"})
	}
	c.auth(ctx, l)
	for _, u := range listenerUses(l) {
		c.use(ctx, l.Pos, u.table, u.service)
	}
	c.authority(ctx, l.Pos, l.CATable, UseClient)
	if l.TLS == config.TLSNone {
		return
	}
	c.certificate(ctx, l.Pos, l.PKINames, CertificateRequest{Listener: i})
}

// auth asks a listener's table how it judges passwords, and for credentials where
// it does not.
func (c *checking) auth(ctx context.Context, l *config.Listener) {
	if l.AuthTable == "" {
		return
	}
	t, err := c.s.tables.get(l.AuthTable)
	itself := false
	if err == nil {
		itself, err = t.Authenticates(ctx)
	}
	switch {
	case err != nil:
		c.add(Problem{Pos: l.Pos, Table: string(l.AuthTable), Service: table.Auth.String(), Cause: causeOf(err, string(l.AuthTable))})
	case !itself:
		c.use(ctx, l.Pos, l.AuthTable, table.Credentials)
	}
}

// certificate opens what a listener or action would present by default, and
// each of its files.
func (c *checking) certificate(ctx context.Context, pos config.Pos, files []string, r CertificateRequest) {
	before := len(c.found)
	q, err := c.s.certQuery(r)
	if err != nil {
		c.add(Problem{Pos: pos, Cause: err.Error()})
		return
	}
	for _, name := range files {
		if _, err := q.fromFile(ctx, name); err != nil {
			c.add(Problem{Pos: pos, Service: "pki " + name, Cause: err.Error()})
		}
	}
	_, err = c.s.Certificate(ctx, r)
	for _, f := range c.s.CertificateFaults() {
		if c.concerns(q, f) {
			c.add(Problem{Pos: pos, Service: f.Source + " " + f.Name, Cause: f.Cause, Warning: f.Serving})
		}
	}
	if err != nil && len(c.found) == before {
		c.add(Problem{Pos: pos, Service: table.Cert.String(), Cause: err.Error()})
	}
}

// concerns reports whether a fault is of a source that q asks.
func (c *checking) concerns(q certQuery, f CertificateFault) bool {
	for _, ref := range q.tables {
		if f.Source == "table "+string(ref) {
			return true
		}
	}
	return f.Source == "pki" && slices.Contains(q.files, f.Name)
}

// authority reads the row of a ca table that judges peers in general. Without
// one, no client verifies but servers do, by the system's anchors.
func (c *checking) authority(ctx context.Context, pos config.Pos, ref config.TableRef, use Use) {
	if ref == "" {
		return
	}
	if !c.done[asked{ref, table.CA}] {
		c.use(ctx, pos, ref, table.CA)
	}
	t, err := c.s.caTable(ctx, ref, []string{c.s.hostname, wildcard})
	switch {
	case err == nil:
		c.overdue(t, Problem{Pos: pos, Table: string(ref), Service: "ca"})
	case !errors.Is(err, table.ErrNotFound):
		c.add(Problem{Pos: pos, Table: string(ref), Service: "ca", Cause: causeOf(err, string(ref))})
	case use == UseClient:
		c.add(Problem{Pos: pos, Table: string(ref), Service: "ca", Warning: true,
			Cause: fmt.Sprintf(`no row %q or "*": no client's certificate verifies`, c.s.hostname)})
	}
}

// overdue warns of CRLs that have run out, at the place of p.
func (c *checking) overdue(t *trust, p Problem) {
	p.Warning = true
	for _, p.Cause = range t.overdue(c.s.clock()) {
		c.add(p)
	}
}

// keyFile warns of a private key that everybody can read.
func (c *checking) keyFile(pki config.PKI) {
	if pki.KeyFile == "" {
		return
	}
	info, err := os.Stat(pki.KeyFile)
	if err == nil && info.Mode().Perm()&0o007 != 0 {
		c.add(Problem{Pos: pki.Pos, Service: "pki " + pki.Name, Warning: true,
			Cause: fmt.Sprintf("key file %s is open to every user (mode %#o)", pki.KeyFile, info.Mode().Perm())})
	}
}
