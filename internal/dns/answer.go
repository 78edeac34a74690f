package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	mdns "github.com/miekg/dns"
)

// Bounds on what is taken from one answer, and on how long it is believed.
const (
	maxRecords  = 100
	maxChain    = 8
	maxTTL      = 24 * time.Hour
	maxNegative = time.Hour
	noSOATTL    = 30 * time.Second
)

type question struct {
	name  string
	qtype uint16
}

func (q question) String() string { return mdns.TypeToString[q.qtype] + " of " + q.name }

// answer is the final outcome of a question. It is shared and never changed.
type answer struct {
	mx      []MX
	addrs   []netip.Addr
	names   []string
	dropped bool  // a record named no host
	err     error // ErrNXDomain or ErrNoData
	ttl     time.Duration
	next    string // the alias chain leaves the answer here
}

func (a *answer) empty() bool { return len(a.mx)+len(a.addrs)+len(a.names) == 0 && !a.dropped }

var errMismatch = errors.New("answer does not belong to the question")

// checkReply refuses what is not an answer to q.
func checkReply(q question, m *mdns.Msg) error {
	if !m.Response || m.Opcode != mdns.OpcodeQuery || len(m.Question) != 1 {
		return errMismatch
	}
	got := m.Question[0]
	if canonical(got.Name) != q.name || got.Qtype != q.qtype || got.Qclass != mdns.ClassINET {
		return errMismatch
	}
	return nil
}

// readAnswer extracts what a valid reply says about q, following aliases as far
// as the reply holds them.
func readAnswer(q question, m *mdns.Msg) *answer {
	a := &answer{ttl: maxTTL}
	name := q.name
	for range maxChain {
		a.collect(name, q.qtype, m.Answer)
		target, ttl, ok := alias(name, m.Answer)
		if !a.empty() || !ok {
			break
		}
		name, a.next = target, target
		a.ttl = min(a.ttl, ttl)
	}
	if !a.empty() {
		a.next = ""
		return a
	}
	if m.Rcode == mdns.RcodeNameError {
		a.next, a.err = "", fmt.Errorf("%s: %w", q, ErrNXDomain)
	} else if a.next == "" {
		a.err = fmt.Errorf("%s: %w", q, ErrNoData)
	}
	if a.err != nil {
		a.ttl = min(a.ttl, negativeTTL(m.Ns))
	}
	return a
}

func (a *answer) collect(owner string, qtype uint16, rrs []mdns.RR) {
	n := 0
	for _, rr := range rrs {
		h := rr.Header()
		if h.Rrtype != qtype || h.Class != mdns.ClassINET || canonical(h.Name) != owner {
			continue
		}
		if n++; n > maxRecords {
			return
		}
		a.ttl = min(a.ttl, time.Duration(h.Ttl)*time.Second)
		a.add(rr)
	}
}

func (a *answer) add(rr mdns.RR) {
	switch rr := rr.(type) {
	case *mdns.A:
		if ip, ok := netip.AddrFromSlice(rr.A); ok {
			a.addrs = append(a.addrs, ip.Unmap())
		}
	case *mdns.AAAA:
		// A mapped IPv4 address in an AAAA record is a fault or a trick.
		if ip, ok := netip.AddrFromSlice(rr.AAAA); ok && !ip.Is4In6() {
			a.addrs = append(a.addrs, ip)
		}
	case *mdns.MX:
		host, err := cleanName(rr.Mx)
		if err != nil && rr.Mx != "." {
			a.dropped = true
			return
		}
		a.mx = append(a.mx, MX{Host: host, Pref: rr.Preference})
	case *mdns.PTR:
		if name, err := cleanName(rr.Ptr); err == nil {
			a.names = append(a.names, name)
		}
	}
}

// alias returns where a CNAME record for name points.
func alias(name string, rrs []mdns.RR) (string, time.Duration, bool) {
	for _, rr := range rrs {
		c, ok := rr.(*mdns.CNAME)
		if ok && c.Hdr.Class == mdns.ClassINET && canonical(c.Hdr.Name) == name {
			return canonical(c.Target), time.Duration(c.Hdr.Ttl) * time.Second, true
		}
	}
	return "", 0, false
}

// negativeTTL reads how long an absence may be remembered (RFC 2308 section 5).
func negativeTTL(ns []mdns.RR) time.Duration {
	for _, rr := range ns {
		if soa, ok := rr.(*mdns.SOA); ok {
			return min(maxNegative, time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second)
		}
	}
	return noSOATTL
}
