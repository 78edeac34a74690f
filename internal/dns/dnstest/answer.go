package dnstest

import (
	"strings"

	mdns "github.com/miekg/dns"
)

func (s *Server) serve(w mdns.ResponseWriter, q *mdns.Msg) {
	if len(q.Question) != 1 {
		return
	}
	name := strings.ToLower(q.Question[0].Name)
	s.mu.Lock()
	s.queries[name]++
	fault := s.faults[name]
	reply := s.answer(q, fault != BareAlias)
	s.mu.Unlock()
	misbehave(w, q, reply, fault)
}

// misbehave sends reply, or what the fault makes of it.
func misbehave(w mdns.ResponseWriter, q, reply *mdns.Msg, fault Fault) {
	switch fault {
	case Silent:
		return
	case Garbage:
		_, _ = w.Write([]byte("\x00\x01 this is not DNS"))
		return
	case NotReply:
		_ = w.WriteMsg(q)
		return
	case ServFail:
		reply = new(mdns.Msg).SetRcode(q, mdns.RcodeServerFailure)
	case Refused:
		reply = new(mdns.Msg).SetRcode(q, mdns.RcodeRefused)
	case NoEDNS:
		if q.IsEdns0() != nil {
			reply = new(mdns.Msg).SetRcodeFormatError(q)
		}
	case Truncate:
		if w.LocalAddr().Network() == "udp" {
			reply.Truncated, reply.Answer = true, nil
		}
	case Proven:
		reply.AuthenticatedData = true
	case WrongID:
		reply.Id++
	case WrongQuestion:
		reply.Question[0].Name = "other.invalid."
	}
	_ = w.WriteMsg(reply)
}

// answer looks the question up as an authoritative server does, following
// aliases through its own records if chase is set. s.mu is held.
func (s *Server) answer(q *mdns.Msg, chase bool) *mdns.Msg {
	reply := new(mdns.Msg).SetReply(q)
	reply.Authoritative = true
	name := strings.ToLower(q.Question[0].Name)
	for range 10 {
		rrs, target := s.find(name, q.Question[0].Qtype)
		reply.Answer = append(reply.Answer, rrs...)
		if target == "" || !chase {
			break
		}
		name = target
	}
	if _, known := s.records[name]; !known && !s.parent(name) {
		reply.Rcode = mdns.RcodeNameError
	}
	reply.Ns = s.soa(name)
	return reply
}

// find returns the records of a name: those asked for, else its alias.
func (s *Server) find(name string, qtype uint16) (rrs []mdns.RR, target string) {
	for _, rr := range s.records[name] {
		if rr.Header().Rrtype == qtype {
			rrs = append(rrs, rr)
		}
	}
	if len(rrs) > 0 {
		return rrs, ""
	}
	for _, rr := range s.records[name] {
		if c, ok := rr.(*mdns.CNAME); ok {
			return []mdns.RR{c}, strings.ToLower(c.Target)
		}
	}
	return nil, ""
}

// parent reports whether some name ends in name, which then exists too.
func (s *Server) parent(name string) bool {
	for known := range s.records {
		if strings.HasSuffix(known, "."+name) {
			return true
		}
	}
	return false
}

// soa returns the nearest SOA record above a name, if the zone has one.
func (s *Server) soa(name string) []mdns.RR {
	for {
		for _, rr := range s.records[name] {
			if rr.Header().Rrtype == mdns.TypeSOA {
				return []mdns.RR{rr}
			}
		}
		_, rest, ok := strings.Cut(name, ".")
		if !ok || rest == "" {
			return nil
		}
		name = rest
	}
}
