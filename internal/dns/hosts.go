package dns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// Bounds on files that the system gives us.
const maxHostsFile = 4 << 20

// Hosts are names known without asking DNS. It is not changed after it was
// made.
type Hosts struct {
	byName map[string][]netip.Addr
	byAddr map[netip.Addr][]string
}

// localhost knows the one name that must never be asked (RFC 6761 section 6.3).
func localhost() *Hosts {
	h := &Hosts{byName: make(map[string][]netip.Addr), byAddr: make(map[netip.Addr][]string)}
	h.add(netip.AddrFrom4([4]byte{127, 0, 0, 1}), "localhost")
	h.add(netip.IPv6Loopback(), "localhost")
	return h
}

func (h *Hosts) add(ip netip.Addr, name string) {
	if !slices.Contains(h.byName[name], ip) {
		h.byName[name] = append(h.byName[name], ip)
	}
	if !slices.Contains(h.byAddr[ip], name) {
		h.byAddr[ip] = append(h.byAddr[ip], name)
	}
}

func (h *Hosts) addrs(name string) ([]netip.Addr, bool) {
	a, ok := h.byName[name]
	return a, ok
}

func (h *Hosts) names(ip netip.Addr) ([]string, bool) {
	n, ok := h.byAddr[ip]
	return n, ok
}

// LoadHosts reads a file in the form of hosts(5). Lines that are not in that
// form are passed over, and what it says about localhost does not count. A file
// that is not there is an empty one.
func LoadHosts(path string) (*Hosts, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return localhost(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("hosts file: %w", err)
	}
	defer f.Close()
	h, err := readHosts(io.LimitReader(f, maxHostsFile))
	if err != nil {
		return nil, fmt.Errorf("hosts file %s: %w", path, err)
	}
	return h, nil
}

func readHosts(r io.Reader) (*Hosts, error) {
	h := localhost()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, field := range fields[1:] {
			if name, err := cleanName(field); err == nil && name != "localhost" {
				h.add(ip.Unmap().WithZone(""), name)
			}
		}
	}
	return h, lines.Err()
}

// SystemServers returns the DNS servers that the system uses, as host:port. The
// caller asks before it locks itself up.
func SystemServers() ([]string, error) { return readServers("/etc/resolv.conf") }

func readServers(path string) ([]string, error) {
	conf, err := mdns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("system's DNS servers: %w", err)
	}
	servers := make([]string, 0, len(conf.Servers))
	for _, s := range conf.Servers {
		if _, err := netip.ParseAddr(s); err != nil {
			return nil, fmt.Errorf("system's DNS servers: %s: %w", path, err)
		}
		servers = append(servers, net.JoinHostPort(s, conf.Port))
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("system's DNS servers: %s names none", path)
	}
	return servers, nil
}
