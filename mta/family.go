package mta

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// familyRest is how long an address family that failed is tried after the other.
const familyRest = 10 * time.Minute

// families remembers whether IPv4 or IPv6 just failed to connect anywhere, so
// that a network without one of them costs every host its other addresses first
// instead of a timeout. The idea is RFC 8305's; nothing is raced. A race needs two
// places under limits of which there may be one, a server that sees connections given
// up takes them for a scan, and mail does not notice the few seconds, once in
// familyRest, that the other address comes later.
type families struct {
	now  func() time.Time
	mu   sync.Mutex
	rest [2]time.Time // until when; IPv6, IPv4
}

func familyIndex(ip netip.Addr) int {
	if ip.Unmap().Is4() {
		return 1
	}
	return 0
}

// note takes the outcome of a connection to an address. A host that refuses
// connections was reached.
func (f *families) note(addr string, err error) {
	ip, bad := netip.ParseAddr(addr)
	if bad != nil {
		return // a socket
	}
	var until time.Time
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
		until = f.now().Add(familyRest)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rest[familyIndex(ip)] = until
}

func (f *families) resting() [2]bool {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	return [2]bool{now.Before(f.rest[0]), now.Before(f.rest[1])}
}

// order puts the family that rests, if only one does, behind the other. It
// returns how many addresses at the beginning are worth a short wait only: the
// first, when the other family might be faster and neither is known to fail.
func (f *families) order(ips []netip.Addr) (hasty int) {
	rest := f.resting()
	if rest[0] != rest[1] {
		slices.SortStableFunc(ips, func(a, b netip.Addr) int {
			return weight(rest[familyIndex(a)]) - weight(rest[familyIndex(b)])
		})
		return 0
	}
	if !rest[0] && len(ips) > 1 && slices.ContainsFunc(ips, func(ip netip.Addr) bool { return familyIndex(ip) != familyIndex(ips[0]) }) {
		return 1
	}
	return 0
}

func weight(last bool) int {
	if last {
		return 1
	}
	return 0
}

// limitFamilies keeps the first so many addresses of each family.
func limitFamilies(ips []netip.Addr, most int) []netip.Addr {
	var seen [2]int
	return slices.DeleteFunc(ips, func(ip netip.Addr) bool {
		seen[familyIndex(ip)]++
		return seen[familyIndex(ip)] > most
	})
}

// patience is how long a connection to an address of a host may take.
func (m *MTA) patience(h *host, addr string) time.Duration {
	if slices.Contains(h.hasty, addr) {
		return m.cfg.Timeouts.Family
	}
	return m.cfg.Timeouts.Connect
}
