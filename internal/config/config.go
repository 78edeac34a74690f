// Package config reads Tabard's configuration: the language of OpenSMTPD's
// smtpd.conf(5) with Tabard's additions, into typed values. Every error names
// file, line and column, and what was expected there.
//
// The package knows the language only. What the names mean (whether a table
// connects, a certificate verifies) is found out by package lookup.
package config

import (
	"fmt"
	"time"

	"tabard/internal/tlsopt"
)

// Pos is a place in a configuration file. Line and Col count from 1; Col counts
// bytes.
type Pos struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
}

// String returns "file:line:col".
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// Dialect says which meaning relay URL schemes have.
type Dialect string

// The two dialects: Tabard's own scheme meanings, and those of OpenSMTPD 6.4 and later.
const (
	DialectTabard    Dialect = "tabard"
	DialectOpenSMTPD Dialect = "opensmtpd"
)

// TableRef is the name of a declared table, without angle brackets. Inline
// lists and single values become anonymous static tables named "<dynamic:N>",
// N counting from 0 in order of appearance. The built-in tables are
// "localhost", "localnames", "anyhost", "anydestination" and "getpwnam".
// The empty TableRef means that none was given.
type TableRef string

// Config is a whole configuration, with references resolved to names that are
// known to exist. It holds plain data only, so that it can travel to another
// process.
type Config struct {
	Dialect   Dialect
	Tables    []Table // in order of declaration, anonymous ones included
	PKIs      []PKI
	CAs       []CA
	Listeners []Listener
	Actions   []Action
	Matches   []Match
	Filters   []Filter
	Procs     []Proc
	Wrappers  []Wrapper
	Queue     Queue
	SMTP      SMTP
	SRS       SRS
	MTA       MTA
	MDA       MDA
	Bounce    Bounce
	Processes []Process
	ADMD      string   // authserv-id; empty: the server's host name
	Hostname  string   // `hostname NAME`; empty: mailname file, then the system's
	Resolvers []string // host:port of DNS servers; empty: the system's
	Control   string   // path of the control socket; empty: the built-in default
	LogSQL    LogSQL
	Metrics   string // `metrics ADDR:PORT`: a loopback address
	Custody   Custody
	Sandbox   string // `sandbox require|best-effort|off`; empty: best-effort
	Scheduler Scheduler

	// DefaultPKI and DefaultCA are the global `pki <t>` and `ca <t>`. They are
	// applied already: to listeners with TLS that name no pki, to listeners that
	// ask for client certificates and name no ca, and to relay actions that name
	// no ca. They are kept for check and for those that print configurations.
	DefaultPKI []TableRef
	DefaultCA  TableRef

	// Where holds the positions of global directives that were given, by their
	// words: "log sql", "srs", "queue ttl".
	Where map[string]Pos

	// Unsupported lists what parsed but is left to a later version. check and
	// run refuse a configuration in which it is not empty.
	Unsupported []Unsupported
}

// LogSQL is `log sql <table> [keep DELAY] [max-size SIZE] [stages]`: the event log.
type LogSQL struct {
	Table   TableRef      // empty: there is none
	Keep    time.Duration // older events are deleted; 0: none
	MaxSize int64         // bytes, beyond which the oldest events are deleted; 0: none
	Stages  bool          // how long messages took in each stage is written, too
}

// Custody names the files that open private keys in tables.
type Custody struct {
	MasterKey   string // of sealed keys; empty: none are opened
	Passphrases string // of encrypted PKCS#8 keys, one on a line
}

// Unsupported is one construct that is understood but not carried out yet.
type Unsupported struct {
	Pos  Pos
	What string
}

// TableAuth says how the passwords of a table are judged; see password.Policy.
type TableAuth struct {
	DefaultScheme string
	AllowPlain    bool
	RefuseWeak    bool
}

// TableCache says how long the answers of a table are believed.
type TableCache struct {
	Off      bool
	TTL      time.Duration // 0: until a change is told, or for a short time where none is
	StaleTTL time.Duration // while the source is down; 0: the default; negative: not at all
	Size     int64         // bytes; 0: the default
}

// Table is a declared table.
type Table struct {
	Pos    Pos
	Name   string
	Kind   string   // "static", "file", "sqlite", "postgres", "ldap", "socketmap", "proc", or a program's type
	Source string   // path, URL or program with arguments; empty for static
	List   []string // entries of an inline list, in order
	Map    []KeyVal // entries of an inline mapping, in order; List and Map are exclusive
	Cache  TableCache
	Auth   TableAuth
}

// KeyVal is one key with its value.
type KeyVal struct{ Key, Value string }

// PKI is `pki NAME ...`: a certificate from files. Certificates from tables are
// named by the listener or action that uses them.
type PKI struct {
	Pos      Pos
	Name     string // host name or "*", lower case
	CertFile string
	KeyFile  string
	DHE      string // "none", "auto", "legacy" or empty
}

// CA is `ca NAME cert "file"`: trust anchors from a file.
type CA struct {
	Pos      Pos
	Name     string
	CertFile string
}

// TLSMode says how a listener speaks TLS.
type TLSMode uint8

// The modes of a listener.
const (
	TLSNone     TLSMode = iota
	TLSStart            // `tls`: STARTTLS offered
	TLSRequire          // `tls-require`: STARTTLS mandatory before MAIL
	TLSImplicit         // `smtps`: TLS from the first byte
)

// Verify says what a listener asks of client certificates.
type Verify uint8

// The client certificate demands.
const (
	VerifyNone     Verify = iota
	VerifyOptional        // `verify optional`: asked for, checked when sent
	VerifyRequire         // `verify`: demanded and checked
)

// AuthMode says whether a listener offers or demands SMTP AUTH.
type AuthMode uint8

// The AUTH modes of a listener.
const (
	AuthNone     AuthMode = iota
	AuthOptional          // `auth-optional`
	AuthRequire           // `auth`: mandatory before MAIL
)

// Listener is one `listen on` directive. A directive that names a host or
// interface with several addresses is still one Listener; addresses are
// resolved when sockets are bound.
type Listener struct {
	Pos                  Pos
	Socket               bool   // `listen on socket`: the implicit local socket's options
	Host                 string // address, host name or interface
	Family               int    // 0 both, 4 or 6
	Port                 string // number or service name; never empty after parsing ("25", or "465" for smtps)
	TLS                  TLSMode
	Verify               Verify
	PKINames             []string       // `pki NAME`, first is the default
	PKITables            []TableRef     // `pki <table>`
	CAName               string         // `ca NAME`
	CATable              TableRef       // `ca <table>`
	Handshake            tlsopt.Options // `ciphers` and `protocols`, here or globally
	Auth                 AuthMode
	AuthTable            TableRef // empty with Auth set: system accounts
	CertAuth             TableRef // `cert-auth <table>`
	Senders              TableRef
	Masquerade           bool
	Tag                  string
	Hostname             string
	Hostnames            TableRef
	Filters              []string
	MaskSource           bool
	ReceivedAuth         bool
	NoDSN                bool
	ProxyV2              bool
	NormalizeBareNewline bool // `smtp bare-newline normalize`: globally or on the listener
}

// Method is how an action delivers.
type Method string

// The delivery methods of an action.
const (
	MethodMbox        Method = "mbox"
	MethodMaildir     Method = "maildir"
	MethodLMTP        Method = "lmtp"
	MethodMDA         Method = "mda"
	MethodForwardOnly Method = "forward-only"
	MethodExpandOnly  Method = "expand-only"
	MethodRelay       Method = "relay"
)

// Action is `action "NAME" METHOD options`.
type Action struct {
	Pos    Pos
	Name   string
	Method Method
	TTL    time.Duration // 0: the queue's

	// Local methods.
	Path     string // maildir path template; empty: ~/Maildir
	Junk     bool   // maildir junk
	LMTP     string // host:port or /socket
	RcptTo   bool   // lmtp ... rcpt-to: RCPT is the envelope's address, not the user
	Command  string // mda command template
	User     string // deliver as this user
	Alias    TableRef
	Virtual  TableRef
	UserBase TableRef // empty: getpwnam
	Wrapper  string

	// Relay.
	Host         TableRef // `host "url"`, `host <t>`, `host { ... }`
	Domain       TableRef // `domain <t>`
	Sender       TableRef // `sender <t>`
	Backup       bool
	BackupMX     string
	TLS          bool // `tls`: mandatory
	NoVerify     bool // `tls no-verify`
	TLSPolicy    TableRef
	DKIM         TableRef // keys to sign with, by the author's domain
	Auth         TableRef
	InsecureAuth bool
	Helo         string
	HeloSrc      TableRef
	Src          TableRef
	PKIName      string
	PKITable     TableRef
	CAName       string
	CATable      TableRef
	Handshake    tlsopt.Options // `ciphers` and `protocols`
	MailFrom     string
	Filters      []string
	SRS          bool
}

// Cond is one condition of a match rule. A nil Cond was not written.
type Cond struct {
	Pos    Pos
	Negate bool
	Regex  bool     // the table holds patterns, asked as service regex
	Table  TableRef // empty: no value was given (auth, rdns, tls without value)
}

// FromKind is the kind of a rule's `from`.
type FromKind uint8

// The kinds of `from`; a rule without from has FromLocal.
const (
	FromLocal FromKind = iota
	FromAny
	FromSocket
	FromSrc
	FromRDNS
	FromAuth
	FromMailFrom
)

// ForKind is the kind of a rule's `for`.
type ForKind uint8

// The kinds of `for`; a rule without for has ForLocal.
const (
	ForLocal ForKind = iota
	ForAny
	ForDomain
	ForRcptTo
)

// Match is one `match` rule. First match wins.
type Match struct {
	Pos      Pos
	From     FromKind
	FromCond Cond // negation, and the table for src, rdns, auth, mail-from
	For      ForKind
	ForCond  Cond // negation, and the table for domain, rcpt-to
	Tag      *Cond
	Helo     *Cond
	TLS      *Cond
	Auth     *Cond
	MailFrom *Cond
	RcptTo   *Cond
	// TLSVerified narrows TLS to sessions whose client certificate was verified.
	TLSVerified bool
	Reject      bool
	Action      string
}

// Filter is a `filter` directive; exactly one of Proc, Command, Chain and Phase
// is set.
type Filter struct {
	Pos      Pos
	Name     string
	Proc     string // filter NAME proc PROC
	Command  string // filter NAME proc-exec "cmd"
	User     string
	Group    string
	Chroot   string
	Chain    []string // filter NAME chain { ... }
	Phase    string   // filter NAME phase PHASE match COND DECISION
	CondKind string   // fcrdns, rdns, src, helo, auth, mail-from, rcpt-to
	Cond     Cond
	Decision string // bypass, junk, reject, disconnect, rewrite, report
	Value    string
}

// Proc is `proc NAME "cmd" ...`.
type Proc struct {
	Pos                 Pos
	Name, Command       string
	User, Group, Chroot string
}

// Wrapper is `mda wrapper NAME "cmd"`.
type Wrapper struct {
	Pos           Pos
	Name, Command string
}

// Process is `process NAME user USER [group GROUP] [chroot DIR]`: who a child
// process becomes when Tabard is started as root.
type Process struct {
	Pos                 Pos
	Name                string // lookup, smtpd, queue, mta, deliver
	User, Group, Chroot string
}

// Queue holds the `queue` directives.
type Queue struct {
	Pos         Pos
	Driver      string        // "sqlite" or "postgres"; empty: sqlite at the default path
	Source      string        // path or URL
	TTL         time.Duration // default 4 days
	Retry       []time.Duration
	Compression bool
	Encryption  string // file of keys; empty: there is none
	ReadOnly    bool   // the keys only open what is stored already
}

// SMTP holds the `smtp` directives.
type SMTP struct {
	Ciphers              []uint16      // cipher suites of TLS 1.2 for listeners that name none; empty: all that are secure
	MaxMails             int           // messages per session, default 100
	MaxRcpt              int           // recipients per message, default 1000
	MaxConnections       int           // sessions at once over all listeners, default 1000
	MaxErrors            int           // refused commands until a session is closed, default 20
	MaxMessageSize       int64         // bytes, default 36700160
	MaxPriority          int           // highest MT-PRIORITY of those who log in, default 9
	FutureRelease        time.Duration // how long they may have mail held, default 7 days; 0: not at all
	SubAddrDelim         string        // one character, default "+"
	NormalizeBareNewline bool
}

// SRS holds the `srs` directives. A key is the secret itself, or "file:/path" of a
// file with a secret on each line.
type SRS struct {
	Key, Backup string
	TTL         time.Duration // of a rewritten address; whole days count
}

// MTA holds the `mta` directives.
type MTA struct {
	MaxDeferred int
	Limits      []MTALimit
}

// MTALimit is `mta limit [for domain D] KEY N` or a family restriction.
type MTALimit struct {
	Pos    Pos
	Domain string // empty: the default for all
	Key    string // also "inet4", "inet6"
	Value  int
}

// MDA holds the `mda limit` directives.
type MDA struct {
	Limits []KeyVal
}

// Scheduler holds the `scheduler limit` directives.
type Scheduler struct {
	Limits []KeyVal
}

// Bounce holds the `bounce` directives.
type Bounce struct {
	WarnIntervals []time.Duration // default 4 h
}
