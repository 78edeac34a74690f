package lookup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tabard/internal/config"
	"tabard/internal/rpc"
	"tabard/table"
)

// ExplainRequest describes a message that nobody has sent, and the session that
// it would come by. With none of Listener, Client, RDNS, Helo, User and TLS given
// that is the local socket.
type ExplainRequest struct {
	Listener string // tag, port, address or address:port; empty: the first that may be meant
	Client   netip.Addr
	RDNS     string // empty: asked of DNS
	Helo     string
	User     string // authenticated as
	TLS      bool
	Verified bool // with TLS, and a client certificate that was verified

	Sender    string
	Recipient string
}

// Explanation is what would become of the message, and why.
type Explanation struct {
	Session string         `json:"session"` // the session that was assumed
	Reply   RecipientReply `json:"reply"`
	Cause   string         `json:"cause,omitempty"` // of a refusal, when its text does not tell
	Fault   string         `json:"fault,omitempty"` // what could not be asked: a temporary refusal
	Steps   []ExplainStep  `json:"steps"`
	Cut     bool           `json:"cut,omitempty"` // there were more steps, rules or answers
	Local   []LocalPlan    `json:"local,omitempty"`
}

// LocalPlan says how a local target would be delivered now.
type LocalPlan struct {
	Target Target `json:"target"`
	Method string `json:"method,omitempty"`
	Place  string `json:"place,omitempty"` // path, host:port or command
	User   string `json:"user,omitempty"`  // deliver as
	Fault  string `json:"fault,omitempty"`
	Final  bool   `json:"final,omitempty"` // Fault bounces
}

// Bounds on an explanation.
const (
	maxPlans        = 50  // targets whose delivery is looked up
	maxShownTargets = 500 // targets that are listed
)

// Explain implements Admin. It asks what a session would ask, of the same code,
// and looks on. The request is of a person: what is wrong with it is an error.
func (s *Service) Explain(ctx context.Context, r ExplainRequest) (Explanation, error) {
	if len(r.Sender) > maxAddress || len(r.Recipient) > maxAddress {
		return Explanation{}, fmt.Errorf("%w: address too long", rpc.ErrInvalid)
	}
	sess, about, err := s.explainSession(ctx, r)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Session: about}
	if reply, refused, err := s.explainSender(ctx, sess, r.Sender); refused || err != nil {
		e.Reply, e.Fault = reply, errorText(err)
		return e, nil
	}
	t := &tracer{s: s}
	req := RecipientRequest{Session: sess, Sender: r.Sender, Recipient: r.Recipient}
	reply, err := s.recipient(table.WithTrace(ctx, &t.tables), req, t)
	t.flush()
	e.Reply, e.Fault, e.Cause, e.Steps, e.Cut = reply, errorText(err), t.cause, t.steps, t.cut
	if len(reply.Targets) > maxShownTargets {
		e.Reply.Targets, e.Cut = reply.Targets[:maxShownTargets], true
	}
	for _, target := range reply.Targets {
		if !target.Relay && len(e.Local) < maxPlans {
			e.Local = append(e.Local, s.localPlan(ctx, target, r))
		}
	}
	return e, nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// explainSender judges what comes before a recipient: who may send here at all.
func (s *Service) explainSender(ctx context.Context, sess Session, sender string) (RecipientReply, bool, error) {
	l, err := s.listener(sess.Listener)
	if err != nil {
		return RecipientReply{}, false, nil // the local socket
	}
	switch {
	case l.TLS == config.TLSRequire && !sess.TLS:
		return RecipientReply{Code: 530, Enhanced: "5.7.0", Text: "the listener takes mail over TLS only (--tls)"}, true, nil
	case l.Auth == config.AuthRequire && sess.User == "":
		return RecipientReply{Code: 530, Enhanced: "5.7.0", Text: "the listener takes mail of authenticated clients only (--auth)"}, true, nil
	case sess.User == "":
		return RecipientReply{}, false, nil
	}
	reply, err := s.Sender(ctx, SenderRequest{Listener: sess.Listener, User: sess.User, Sender: sender})
	if err != nil || reply.Allowed {
		return RecipientReply{}, false, err
	}
	return RecipientReply{
		Code: 550, Enhanced: "5.7.1",
		Text: fmt.Sprintf("Sender rejected: <%s> is not among the senders of %s in table %s", sender, sess.User, l.Senders),
	}, true, nil
}

// explainSession makes the session that a request describes.
func (s *Service) explainSession(ctx context.Context, r ExplainRequest) (Session, string, error) {
	if r.Listener == "" && !r.Client.IsValid() && r.RDNS == "" && r.Helo == "" && r.User == "" && !r.TLS && !r.Verified {
		return Session{ID: "explain", Listener: -1, Socket: true}, "the local socket", nil
	}
	i, err := s.explainListener(r)
	if err != nil {
		return Session{}, "", err
	}
	l := &s.cfg.Listeners[i]
	sess := Session{
		ID: "explain", Listener: i, Remote: r.Client.Unmap().WithZone(""), RDNS: r.RDNS, Helo: r.Helo, User: r.User,
		TLS: r.TLS || r.Verified || l.TLS == config.TLSImplicit,
	}
	if r.Verified {
		sess.Peer.State = Verified
	}
	if sess.RDNS == "" {
		sess.RDNS = unknownName
		if s.resolver != nil && sess.Remote.IsValid() {
			sess.RDNS, _ = s.resolver.Reverse(ctx, sess.Remote)
		}
	}
	if err := s.checkSession(&sess); err != nil {
		return Session{}, "", err
	}
	return sess, sessionText(l, &sess), nil
}

// sessionText says which session was assumed.
func sessionText(l *config.Listener, sess *Session) string {
	text := "listener " + net.JoinHostPort(l.Host, l.Port) + " (" + l.Pos.String() + ")"
	add := func(word, value string) {
		if value != "" {
			text += ", " + word + " " + value
		}
	}
	add("tag", l.Tag)
	if sess.Remote.IsValid() {
		add("client", sess.Remote.String()+" ["+sess.RDNS+"]")
	}
	add("helo", sess.Helo)
	add("user", sess.User)
	if sess.TLS {
		text += ", TLS"
	}
	if sess.Peer.State == Verified {
		text += ", client certificate verified"
	}
	return text
}

// explainListener finds the listener that is meant: the one that a text names,
// else the first, or for a user the first where one can log in.
func (s *Service) explainListener(r ExplainRequest) (int, error) {
	network := func(l config.Listener) bool { return !l.Socket }
	first := slices.IndexFunc(s.cfg.Listeners, network)
	if first < 0 {
		return 0, fmt.Errorf("%w: the configuration has no listener", rpc.ErrInvalid)
	}
	if r.Listener == "" {
		i := slices.IndexFunc(s.cfg.Listeners, func(l config.Listener) bool { return network(l) && (l.Auth != config.AuthNone || l.CertAuth != "") })
		if r.User == "" || i < 0 {
			i = first
		}
		return i, nil
	}
	port := portNumber(r.Listener)
	var known []string
	for i, l := range s.cfg.Listeners {
		if !network(l) {
			continue
		}
		at := net.JoinHostPort(l.Host, l.Port)
		if slices.Contains([]string{l.Tag, l.Host, at}, r.Listener) || portNumber(l.Port) == port {
			return i, nil
		}
		known = append(known, at)
	}
	return 0, fmt.Errorf("%w: no listener %q; there are %s", rpc.ErrInvalid, r.Listener, strings.Join(known, ", "))
}

// portNumber is a port as a number; what names none stays as it is.
func portNumber(port string) string {
	if n, err := net.LookupPort("tcp", port); err == nil {
		return strconv.Itoa(n)
	}
	return port
}

// localPlan looks up how a target would be delivered now.
func (s *Service) localPlan(ctx context.Context, t Target, r ExplainRequest) LocalPlan {
	p := LocalPlan{Target: t}
	d, err := s.Delivery(ctx, DeliveryRequest{
		Action: t.Action, User: t.User, Address: t.Address, Recipient: r.Recipient, Sender: r.Sender,
	})
	switch {
	case err != nil:
		p.Fault = err.Error()
	case d.Gone:
		p.Fault, p.Final = d.Text, true
	}
	p.Method, p.User = d.Method, d.User
	for _, place := range []string{d.Path, d.LMTP, d.Command} {
		if place != "" {
			p.Place = place
		}
	}
	return p
}

// explainRoute is route, with the tables' answers. Whether there are credentials
// for the labels is asked, too: mta would ask for that much later.
func (s *Service) explainRoute(ctx context.Context, r RouteRequest) (Route, error) {
	t := &tracer{s: s, steps: []ExplainStep{{}}}
	ctx = table.WithTrace(ctx, &t.tables)
	route, err := s.route(ctx, r)
	if err != nil {
		return route, err
	}
	for _, u := range route.Hosts {
		if a, err := s.action(r.Action); err == nil && a.auth != nil && u.Label != "" {
			_, _ = a.auth.Credentials(ctx, u.Label) // the trace has the outcome
		}
	}
	t.flush()
	route.Answers = t.now().Answers
	return route, nil
}
