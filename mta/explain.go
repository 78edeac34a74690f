package mta

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/internal/dns"
	"tabard/lookup"
	"tabard/queue"
)

// ExplainRequest names mail that an action relays.
type ExplainRequest struct {
	Action   string
	Address  string // recipient, after aliases
	Original string // recipient as given in RCPT
	Sender   string
	Probe    bool // connect, up to where mail could be sent
	// What the message asks for: see queue.Message.
	RequireTLS, TLSOptional bool
	// Paused are the routes that the queue has paused: what jobs brought along may
	// be long past.
	Paused []queue.Hold
}

// Explanation is where mail would go now, and why.
type Explanation struct {
	Domain      string               `json:"domain"`
	Fault       *Fault               `json:"fault,omitempty"`   // why it goes nowhere
	Answers     []lookup.TableAnswer `json:"answers,omitempty"` // what the route was made of
	MailFrom    string               `json:"mail_from,omitempty"`
	Helo        string               `json:"helo,omitempty"`
	Sources     []lookup.RouteSource `json:"sources,omitempty"` // none: the system chooses
	Certificate string               `json:"certificate,omitempty"`
	Hosts       []HostPlan           `json:"hosts"`
	DNS         []dns.Asked          `json:"dns,omitempty"`
}

// Fault is what keeps mail from a destination or a host.
type Fault struct {
	Final  bool   `json:"final"`  // the mail bounces; else it waits
	Status string `json:"status"` // RFC 3463
	Text   string `json:"text"`
}

// HostPlan is a host that would be tried, in its turn.
type HostPlan struct {
	URL        string        `json:"url"`
	MX         bool          `json:"mx"` // found by MX
	Preference uint16        `json:"preference,omitempty"`
	Label      string        `json:"label,omitempty"` // credentials to log in with
	TLS        string        `json:"tls"`             // least level that a connection must have, by the words of tls-policy
	TLSBy      string        `json:"tls_by"`          // who wants it so
	Names      []string      `json:"names,omitempty"` // which the certificate must be for one of
	Fault      *Fault        `json:"fault,omitempty"`
	Addresses  []AddressPlan `json:"addresses,omitempty"`
}

// AddressPlan is an address of a host, in its turn.
type AddressPlan struct {
	Address string    `json:"address"`
	Until   time.Time `json:"until,omitzero"`   // not tried before
	Why     string    `json:"why,omitempty"`    // what went wrong there
	Probes  []Probe   `json:"probes,omitempty"` // connections that were made, the last one successful or not
}

// Explain implements Explainer. Nothing that it finds out has an effect on mail.
func (m *MTA) Explain(ctx context.Context, r ExplainRequest) (Explanation, error) {
	var asked dns.Trace
	ctx = dns.WithTrace(ctx, &asked)
	_, domain := address.Split(r.Address)
	domain = address.Labels(domain)
	e := Explanation{Domain: domain, Hosts: []HostPlan{}}
	d, fail := m.destination(ctx, lookup.RouteRequest{
		Action: r.Action, Domain: domain, Sender: r.Sender, Recipient: r.Address, Original: r.Original, Explain: true,
	})
	if fail == nil {
		d.serve(&queue.Message{Sender: r.Sender, RequireTLS: r.RequireTLS, TLSOptional: r.TLSOptional})
		e.fromRoute(&d.route)
		e.Certificate = m.ownCertificate(ctx, d)
		var hosts []*host
		hosts, fail = m.hosts(ctx, d)
		for _, h := range hosts[:min(len(hosts), m.cfg.Limits.Hosts)] {
			e.Hosts = append(e.Hosts, m.planHost(ctx, d, h, r.Paused))
		}
		if r.Probe {
			m.probeHosts(ctx, d, hosts, e.Hosts)
		}
	}
	e.Fault, e.DNS = newFault(fail), sortAsked(asked.Asked())
	return e, nil
}

// sortAsked puts questions for MXs first and families of one host together: some
// are asked at the same time.
func sortAsked(asked []dns.Asked) []dns.Asked {
	slices.SortStableFunc(asked, func(a, b dns.Asked) int {
		aType, aName, _ := strings.Cut(a.Question, " of ")
		bType, bName, _ := strings.Cut(b.Question, " of ")
		return cmp.Or(-cmp.Compare(weight(aType == "MX"), weight(bType == "MX")), cmp.Compare(aName, bName), cmp.Compare(aType, bType))
	})
	return asked
}

func (e *Explanation) fromRoute(r *lookup.Route) {
	e.Answers, e.MailFrom, e.Helo, e.Sources = r.Answers, r.MailFrom, r.Helo, r.Sources
}

func newFault(f *failure) *Fault {
	if f == nil {
		return nil
	}
	return &Fault{Final: f.outcome == queue.Failed, Status: f.enhanced, Text: f.text}
}

// ownCertificate names the client certificate that would be shown.
func (m *MTA) ownCertificate(ctx context.Context, d *destination) string {
	if !d.route.Present {
		return ""
	}
	own, err := m.lookup.Certificate(ctx, lookup.CertificateRequest{Action: d.action, ServerName: d.helo})
	if err != nil {
		return "none: " + err.Error()
	}
	if len(own.Chain) == 0 {
		return "none: the chain is empty"
	}
	leaf, err := x509.ParseCertificate(own.Chain[0])
	if err != nil {
		return "none: " + err.Error()
	}
	return fmt.Sprintf("%s, valid until %s", leaf.Subject, leaf.NotAfter.UTC().Format(time.DateOnly))
}

func (m *MTA) planHost(ctx context.Context, d *destination, h *host, paused []queue.Hold) HostPlan {
	fail := d.decide(ctx, h)
	p := HostPlan{URL: h.relayURL(), MX: h.mx, Preference: h.pref, Label: h.label, Fault: newFault(fail)}
	if fail != nil {
		return p
	}
	if fail := h.pausedBy(paused); fail != nil {
		p.Fault = newFault(fail)
		return p
	}
	p.TLS, p.TLSBy = h.policy.level.String(), h.policy.by
	if h.policy.chain {
		p.Names = h.policy.names
	}
	addrs, fail := m.addresses(ctx, h, d)
	p.Fault = newFault(fail)
	for _, addr := range addrs {
		a := AddressPlan{Address: addr}
		_, at := m.at(h, addr, h.policy.first(h.port))
		for _, place := range []string{placeOf(d, h, addr), routePlace(d, addr, at)} {
			if until, why := m.penalties.look(place); until.After(a.Until) {
				a.Until, a.Why = until, why
			}
		}
		p.Addresses = append(p.Addresses, a)
	}
	return p
}

// relayURL is the one that would lead to the host alone.
func (h *host) relayURL() string {
	if h.socket() {
		return string(h.scheme) + "://" + h.name
	}
	return string(h.scheme) + "://" + net.JoinHostPort(h.name, h.port)
}

// look returns until when a place is not tried, and why, if it is one that
// failed.
func (p *penalties) look(place string) (until time.Time, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.at[place]; e != nil && p.now().Before(e.until) {
		return e.until, e.why
	}
	return time.Time{}, ""
}

// offersText lists what a server offers, one extension a line, in order.
func offersText(offers map[string]string) []string {
	out := make([]string, 0, len(offers))
	for keyword, params := range offers {
		out = append(out, strings.TrimSpace(keyword+" "+params))
	}
	slices.SortFunc(out, cmp.Compare)
	return out
}
