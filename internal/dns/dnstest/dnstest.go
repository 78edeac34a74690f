// Package dnstest runs an authoritative DNS server on 127.0.0.1 for tests: zone
// text in, address out. It can also misbehave, name by name.
package dnstest

import (
	"net"
	"strings"
	"sync"
	"testing"

	mdns "github.com/miekg/dns"
)

// Fault is a way to misbehave.
type Fault int

// The faults. The zero value is none.
const (
	ServFail      Fault = iota + 1
	Refused             // answers REFUSED
	NoEDNS              // answers FORMERR to EDNS0, and properly without
	Silent              // never answers
	Truncate            // sets TC over UDP and answers in full over TCP
	WrongID             // another message id
	WrongQuestion       // the answer to a question that was not asked
	NotReply            // the query itself, sent back
	Garbage             // bytes that are no DNS message
	BareAlias           // CNAME records alone, the target left to ask for
	Proven              // no fault: sets AD, as a resolver does that validates by DNSSEC
)

// Server is a DNS server that is authoritative for everything.
type Server struct {
	addr string
	udp  *mdns.Server
	tcp  *mdns.Server

	mu      sync.Mutex
	records map[string][]mdns.RR
	faults  map[string]Fault
	queries map[string]int
}

// Start runs a server with the zone's records until the test ends. The zone is
// in master file form (RFC 1035 section 5) with "." as its origin and a TTL of
// 3600 where none is written.
func Start(t testing.TB, zone string) *Server {
	t.Helper()
	s := &Server{faults: make(map[string]Fault), queries: make(map[string]int)}
	s.Zone(t, zone)
	pc, l := listen(t)
	s.addr = pc.LocalAddr().String()
	s.udp = &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(s.serve)}
	s.tcp = &mdns.Server{Listener: l, Handler: mdns.HandlerFunc(s.serve)}
	for _, srv := range []*mdns.Server{s.udp, s.tcp} {
		ready := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(ready) }
		go func() { _ = srv.ActivateAndServe() }()
		<-ready
	}
	t.Cleanup(s.Close)
	return s
}

// listen finds a port that is free for both UDP and TCP.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("dnstest: no port is free for both UDP and TCP")
	return nil, nil
}

// Addr returns the server's host:port.
func (s *Server) Addr() string { return s.addr }

// Close stops the server. Start arranges for it too.
func (s *Server) Close() {
	_ = s.udp.Shutdown()
	_ = s.tcp.Shutdown()
}

// Zone replaces all records.
func (s *Server) Zone(t testing.TB, zone string) {
	t.Helper()
	records := make(map[string][]mdns.RR)
	parser := mdns.NewZoneParser(strings.NewReader(zone), ".", "")
	parser.SetDefaultTTL(3600)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		name := strings.ToLower(rr.Header().Name)
		records[name] = append(records[name], rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatalf("dnstest: %v", err)
	}
	s.mu.Lock()
	s.records = records
	s.mu.Unlock()
}

// Set makes the server misbehave for a name, of every type; 0 heals it.
func (s *Server) Set(name string, f Fault) {
	s.mu.Lock()
	s.faults[strings.ToLower(mdns.Fqdn(name))] = f
	s.mu.Unlock()
}

// Queries returns how often a name was asked for, over all types.
func (s *Server) Queries(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries[strings.ToLower(mdns.Fqdn(name))]
}
