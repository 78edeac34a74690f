package lookup

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

// The built-in tables.
const (
	tableLocalhost      config.TableRef = "localhost"
	tableLocalnames     config.TableRef = "localnames"
	tableAnyhost        config.TableRef = "anyhost"
	tableAnydestination config.TableRef = "anydestination"
	tableGetpwnam       config.TableRef = "getpwnam"
)

func builtins(hostname string) map[config.TableRef]table.Backend {
	own := &ownAddrs{}
	always := func(string) (bool, error) { return true, nil }
	return map[config.TableRef]table.Backend{
		tableLocalhost:  checker{table.NetAddr, own.isLocal},
		tableLocalnames: checker{table.Domain, localName(hostname, own)},
		tableAnyhost:    checker{table.NetAddr, always},
		tableAnydestination: checker{table.Domain, func(domain string) (bool, error) {
			return domain != "", nil
		}},
		tableGetpwnam: systemUsers{},
	}
}

// checker is a built-in table that says whether something is in it.
type checker struct {
	service table.Service
	in      func(key string) (bool, error)
}

// Lookup implements table.Backend.
func (c checker) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	ok, err := c.Check(ctx, s, key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, table.ErrNotFound
	}
	return table.Row{key}, nil
}

// Check implements table.Backend.
func (c checker) Check(_ context.Context, s table.Service, key string) (bool, error) {
	if s != c.service {
		return false, table.ErrUnsupported
	}
	return c.in(key)
}

// Fetch implements table.Backend.
func (c checker) Fetch(context.Context, table.Service) ([]table.Row, error) {
	return nil, table.ErrUnsupported
}

// Close implements table.Backend.
func (c checker) Close() error { return nil }

// ownAddrs knows the addresses of this machine's interfaces, which may change
// while the server runs.
type ownAddrs struct {
	mu    sync.Mutex
	addrs map[netip.Addr]bool
	read  time.Time
}

// refresh is how long addresses are believed.
const refresh = 30 * time.Second

func (o *ownAddrs) has(ip netip.Addr) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.addrs == nil || time.Since(o.read) > refresh {
		list, err := net.InterfaceAddrs()
		if err != nil {
			return false, err
		}
		o.addrs, o.read = make(map[netip.Addr]bool, len(list)), time.Now()
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				o.addrs[p.Addr().Unmap()] = true
			}
		}
	}
	return o.addrs[ip], nil
}

// isLocal answers netaddr: the local socket, loopback, and own addresses.
func (o *ownAddrs) isLocal(key string) (bool, error) {
	if strings.EqualFold(key, table.LocalKey) {
		return true, nil
	}
	ip, err := table.ParseIP(key)
	if err != nil {
		return false, nil
	}
	if ip.IsLoopback() {
		return true, nil
	}
	return o.has(ip)
}

// localName answers domain: "localhost", the server's name, and address
// literals of its own addresses.
func localName(hostname string, own *ownAddrs) func(string) (bool, error) {
	return func(domain string) (bool, error) {
		if domain == "localhost" || domain == hostname {
			return true, nil
		}
		if !strings.HasPrefix(domain, "[") {
			return false, nil
		}
		return own.isLocal(domain)
	}
}

// systemUsers answers userinfo from the system's user database.
type systemUsers struct{}

// Lookup implements table.Backend.
func (systemUsers) Lookup(_ context.Context, s table.Service, key string) (table.Row, error) {
	if s != table.UserInfo {
		return nil, table.ErrUnsupported
	}
	u, err := user.Lookup(key)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return nil, table.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if _, err := strconv.ParseUint(u.Uid, 10, 32); err != nil {
		return nil, errors.New("system user has no numeric id")
	}
	return table.Row{u.Uid, u.Gid, u.HomeDir}, nil
}

// Check implements table.Backend.
func (u systemUsers) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	_, err := u.Lookup(ctx, s, key)
	return err == nil, err
}

// Fetch implements table.Backend.
func (systemUsers) Fetch(context.Context, table.Service) ([]table.Row, error) {
	return nil, table.ErrUnsupported
}

// Close implements table.Backend.
func (systemUsers) Close() error { return nil }

var (
	_ table.Backend = checker{}
	_ table.Backend = systemUsers{}
)
