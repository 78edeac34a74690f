// Package lookup is the process that knows: it holds every table, the ruleset,
// certificates and private keys, and answers the other processes' questions.
// It never touches a socket that faces the network.
//
// What the others may ask is split by who asks (Inbound for smtpd, Outbound for
// mta, Local for queue), and only that part is served on the edge to each
// process: a compromised smtpd cannot ask for relay passwords.
//
// An error from any method is a temporary failure (451, deferral). Refusals are
// answers, not errors.
package lookup

import (
	"context"
	"crypto"
	"net/netip"
	"time"

	"tabard/internal/tlsopt"
	"tabard/table"
)

// Client is everything that can be asked of lookup.
type Client interface {
	Inbound
	Outbound
	Local
}

// Inbound is what smtpd asks.
type Inbound interface {
	// Connect names the peer of a new connection: reverse DNS and our own host
	// name towards it. It may take as long as DNS does; it never fails for DNS.
	Connect(ctx context.Context, r ConnectRequest) (ConnectReply, error)
	// Certificate chooses the certificate for a handshake.
	Certificate(ctx context.Context, r CertificateRequest) (Certificate, error)
	// Sign makes one TLS signature with the key behind a handle.
	Sign(ctx context.Context, r SignRequest) ([]byte, error)
	// Identify judges a client's certificate chain, and says which user it is.
	Identify(ctx context.Context, r VerifyRequest) (Identity, error)
	// Authenticate checks a user name and password for a listener.
	Authenticate(ctx context.Context, r AuthRequest) (AuthReply, error)
	// Sender says whether an authenticated user may use a reverse-path on a
	// listener that has `senders`.
	Sender(ctx context.Context, r SenderRequest) (SenderReply, error)
	// Recipient runs the ruleset and the expansion for one RCPT.
	Recipient(ctx context.Context, r RecipientRequest) (RecipientReply, error)
}

// Outbound is what mta asks.
type Outbound interface {
	// Route says how a relay action delivers to a domain now.
	Route(ctx context.Context, r RouteRequest) (Route, error)
	Certificate(ctx context.Context, r CertificateRequest) (Certificate, error)
	Sign(ctx context.Context, r SignRequest) ([]byte, error)
	Verify(ctx context.Context, r VerifyRequest) (Verdict, error)
	// DKIM returns the keys that sign mail of an author's domain. None: the mail
	// is not signed.
	DKIM(ctx context.Context, r DKIMRequest) ([]DKIMKey, error)
	// RelayCredentials returns user and password for a label of an action's
	// auth table. mta asks only when it is about to authenticate.
	RelayCredentials(ctx context.Context, r CredentialsRequest) (Credentials, error)
}

// Local is what queue asks.
type Local interface {
	// Delivery says how and as whom a local action delivers now.
	Delivery(ctx context.Context, r DeliveryRequest) (Delivery, error)
	// Bounce routes a message with null reverse-path that the queue makes
	// itself. It needs no match rule: without one, the address is relayed by MX.
	Bounce(ctx context.Context, recipient string) (RecipientReply, error)
	// Redirect routes a message in the queue to another recipient, which the rules
	// are asked for as for mail from this machine.
	Redirect(ctx context.Context, r RedirectRequest) (RecipientReply, error)
	// Actions returns the names of the configured actions.
	Actions(ctx context.Context) ([]ActionInfo, error)
}

// ConnectRequest describes a new connection.
type ConnectRequest struct {
	Listener int // index into the configuration's listeners
	Remote   netip.AddrPort
	Local    netip.AddrPort
}

// ConnectReply is what is known about the peer.
type ConnectReply struct {
	RDNS     string // host name that resolves back to the address, else a name that does not, else "<unknown>"
	FCrDNS   string // "pass", "fail" or "error"
	Hostname string // our name towards this peer (banner, Received)
}

// Use is what a certificate is for. A handle signs only for the use that it was
// issued for.
type Use uint8

// The uses of a key.
const (
	UseServer Use = iota + 1
	UseClient
	UseDKIM // signatures of mail (RFC 6376), never of handshakes
)

// CertificateRequest asks for a chain. Listener (smtpd) or Action (mta) names
// the directive whose pki options apply.
type CertificateRequest struct {
	Listener   int
	Action     string
	ServerName string   // SNI; empty when none was sent
	Schemes    []uint16 // TLS SignatureScheme values that the peer offers
	// Have is the fingerprint of a chain the caller keeps; when it is still the
	// answer, Chain is left out.
	Have [32]byte
}

// Certificate is a chain without its key.
type Certificate struct {
	Chain       [][]byte // DER, leaf first
	Fingerprint [32]byte // SHA-256 over the chain
	Handle      string   // opaque name of the key, for SignRequest
	Schemes     []uint16 // what the key can sign; empty: whatever its type allows
}

// SignRequest asks for one signature in a TLS handshake.
type SignRequest struct {
	Handle string
	Digest []byte      // the hash, or the whole message for Ed25519
	Hash   crypto.Hash // 0 for Ed25519
	PSS    bool        // RSA-PSS with salt length equal to the hash, else PKCS#1 v1.5
}

// VerifyRequest asks for a verdict on the chain that a peer presented.
type VerifyRequest struct {
	Listener int    // the inbound listener; its ca option applies
	Action   string // the outbound action; its ca option applies
	Use      Use    // what the peer's certificate is used for: UseClient inbound, UseServer outbound
	Name     string // outbound: the host name the certificate must be for
	// Names, if there are any, are those that it may be for instead of Name; one
	// that begins with a dot stands for every name below. The ca row is still
	// that of Name.
	Names []string
	Chain [][]byte
}

// VerdictState is the three-valued outcome of a verification.
type VerdictState uint8

// The states of a verdict. The zero value is the honest default.
const (
	Unchecked VerdictState = iota
	Verified
	Failed
)

// String returns the word that Received and logs print.
func (s VerdictState) String() string {
	switch s {
	case Verified:
		return "verified"
	case Failed:
		return "failed"
	}
	return "unchecked"
}

// Verdict is the outcome of a verification.
type Verdict struct {
	State    VerdictState
	Identity string // of a verified peer: the name verified, or the leaf's subject
	Reason   string // of a failed one: see Reasons
}

// Identity is who a client is by its certificate.
type Identity struct {
	Verdict Verdict
	User    string // empty: the listener has no cert-auth, or the certificate is nobody's
	By      string // the identity that User was found by, for logs
}

// AuthRequest is one attempt to authenticate.
type AuthRequest struct {
	Listener int
	User     string
	Password string
}

// AuthReply says whether the password was right.
type AuthReply struct {
	OK   bool
	User string // the canonical user name
}

// SenderRequest asks whether User may send as Sender.
type SenderRequest struct {
	Listener int
	User     string
	Sender   string // reverse-path without brackets; empty for null
}

// SenderReply is the answer to SenderRequest.
type SenderReply struct{ Allowed bool }

// Session is what smtpd states about a session when it asks about a recipient.
type Session struct {
	_ struct{} `cbor:",toarray"`

	ID       string
	Listener int
	Socket   bool // the local socket
	Remote   netip.Addr
	RDNS     string // "<unknown>" or a name
	Helo     string
	TLS      bool
	Peer     Verdict // on the client's certificate
	User     string  // authenticated user, or empty
}

// RecipientRequest asks where a recipient's mail goes.
type RecipientRequest struct {
	_ struct{} `cbor:",toarray"`

	Session   Session
	Sender    string // reverse-path without brackets
	Recipient string // forward-path without brackets
}

// RedirectRequest asks where mail goes that an administrator sends to another
// recipient.
type RedirectRequest struct {
	Sender    string // reverse-path without brackets
	Recipient string
}

// RecipientReply holds either a refusal (Code is 4xx or 5xx) or, with Code 0, at
// least one target.
type RecipientReply struct {
	_ struct{} `cbor:",toarray"`

	Code     int      `json:"code"`
	Enhanced string   `json:"enhanced"` // "5.1.1"
	Text     string   `json:"text"`
	Rule     string   `json:"rule"` // position of the rule that decided, for logs
	Targets  []Target `json:"targets"`

	// Match and Expand are how long the rules took, and all else.
	Match  time.Duration `json:"-" cbor:"match"`
	Expand time.Duration `json:"-" cbor:"expand"`
}

// Target is one final destination of an expanded recipient.
type Target struct {
	_ struct{} `cbor:",toarray"`

	Action  string `json:"action"`  // empty: relay by MX without an action (bounces only)
	Relay   bool   `json:"relay"`   // else local
	Address string `json:"address"` // user@domain after expansion
	User    string `json:"user"`    // local: the user whose mailbox it is
}

// RouteRequest asks how to relay.
type RouteRequest struct {
	_ struct{} `cbor:",toarray"`

	Action    string
	Domain    string // destination domain, A-labels
	Sender    string
	Recipient string
	Original  string // recipient as given in RCPT, before aliases; may be empty
	Explain   bool   // fill in Route.Answers
}

// Route tells mta how to deliver.
type Route struct {
	_ struct{} `cbor:",toarray"`

	Hosts  []RelayURL // in order of preference; empty: by MX of the domain
	Helo   string
	Source string // source address; empty: the kernel's choice
	// Sources are all configured source addresses, Source first, each with the
	// name to say from there: for a destination of the other address family.
	Sources  []RouteSource
	TLS      bool // `relay tls`: the channel is encrypted or the mail deferred
	NoVerify bool // `tls no-verify`
	Present  bool // a client certificate is configured
	DKIM     bool // mail is signed, if there is a key: ask DKIM
	// InsecureAuth allows credentials over channels that are not verified.
	InsecureAuth bool
	Handshake    tlsopt.Options // TLS versions and ciphers of the action
	// Policy is the row of the action's tls-policy table for the destination
	// domain; it holds for delivery by MX, RelayURL.Policy for hosts.
	Policy   *TLSPolicy
	MailFrom string // replaces the reverse-path when not empty: `mail-from`, or by SRS
	BackupMX string // act as this backup MX; empty: not a backup
	// Answers are the questions that the route was made of, for people.
	Answers []TableAnswer
}

// RouteSource is a source address and its EHLO name.
type RouteSource struct {
	Address string `json:"address"`
	Helo    string `json:"helo"`
}

// Scheme is the exact meaning of a relay URL's scheme.
type Scheme string

// The schemes of Tabard's dialect (DESIGN 6).
const (
	SchemeSMTPTLS Scheme = "smtp+tls" // STARTTLS when offered, else plain: the default
	SchemeSMTP    Scheme = "smtp"     // plain text only
	SchemeTLS     Scheme = "tls"      // STARTTLS or nothing
	SchemeSMTPS   Scheme = "smtps"    // TLS from the first byte or nothing
	SchemeSSL     Scheme = "ssl"      // STARTTLS, else TLS from the first byte, or nothing
	SchemeBackup  Scheme = "backup"   // MXs of the mail's domain that are better than the named one
	SchemeLMTP    Scheme = "lmtp"     // LMTP
)

// RelayURL is a parsed relay URL.
type RelayURL struct {
	_ struct{} `cbor:",toarray"`

	Scheme Scheme
	Label  string     // row of the auth table; empty: no authentication
	Host   string     // host name, or IP address without brackets, or /socket path
	Port   string     // never empty after parsing; "0" for a socket path
	MX     bool       // the MXs of Host instead of Host; of the mail's domain if Host is empty
	Policy *TLSPolicy // nil: none applies
}

// TLSPolicy is a row of a tls-policy table.
type TLSPolicy struct {
	Row string // where it stands, for people: `tls-policy <mail> "*.example.org"`
	table.Policy
}

// ByDomain reports whether where the URL leads depends on the mail's domain.
func (u RelayURL) ByDomain() bool { return u.Scheme == SchemeBackup || u.MX && u.Host == "" }

// DKIMRequest asks for the keys that sign an action's mail (RFC 6376).
type DKIMRequest struct {
	Action string
	Domain string // of the author (the From field), A-labels
}

// DKIMKey is a key that signs mail; it stays where it is.
type DKIMKey struct {
	Domain   string // signing domain: the author's, or one above it
	Selector string
	Handle   string
	Public   []byte // SubjectPublicKeyInfo, DER
}

// CredentialsRequest asks for the row behind a label.
type CredentialsRequest struct {
	Action string
	Label  string
}

// Credentials are what mta authenticates with: a password, or an OAuth 2.0
// access token.
type Credentials struct {
	User, Password, Token string
	Plain                 bool // the password is to be sent as it is, by PLAIN or LOGIN
}

// DeliveryRequest asks how a local action delivers one envelope.
type DeliveryRequest struct {
	Action    string
	User      string
	Address   string // envelope recipient after expansion
	Recipient string // envelope recipient as given in RCPT
	Sender    string
}

// Delivery tells a deliver process what to do. All templates are expanded.
// Gone means that it can never be carried out any more (the user or the action
// was removed): Text says why, and the envelope bounces.
type Delivery struct {
	Gone    bool
	Text    string
	UID     int // -1: the server's own
	GID     int
	Home    string
	User    string
	Method  string // maildir, lmtp, mda, mbox
	Path    string // maildir directory, mbox file
	Junk    bool
	LMTP    string // host:port or socket path
	RcptTo  bool
	Command string // mda
	Env     []string
}

// ActionInfo is what the queue needs to know about an action.
type ActionInfo struct {
	Name  string
	Relay bool
	Host  bool // relays to the same hosts whatever the domain: all share one destination
	TTL   time.Duration
}
