package lookup

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

// reverseTimeout bounds the wait for reverse DNS: the client waits for its
// greeting meanwhile.
const reverseTimeout = 5 * time.Second

// Connect implements Inbound.
func (s *Service) Connect(ctx context.Context, r ConnectRequest) (ConnectReply, error) {
	reply := ConnectReply{RDNS: unknownName, FCrDNS: "error", Hostname: s.hostname}
	l, err := s.listener(r.Listener)
	if err != nil {
		return ConnectReply{}, err
	}
	if reply.Hostname, err = s.listenerName(ctx, l, r.Local.Addr()); err != nil {
		return ConnectReply{}, err
	}
	ip := r.Remote.Addr().Unmap().WithZone("")
	if s.resolver == nil || !ip.IsValid() {
		return reply, nil
	}
	ctx, cancel := context.WithTimeout(ctx, reverseTimeout)
	defer cancel()
	reply.RDNS, reply.FCrDNS = s.resolver.Reverse(ctx, ip)
	return reply, nil
}

// listenerName is our name towards the peers of a listener: by the local
// address, the listener's, or the server's.
func (s *Service) listenerName(ctx context.Context, l *config.Listener, local netip.Addr) (string, error) {
	name := l.Hostname
	if name == "" {
		name = s.hostname
	}
	if l.Hostnames == "" || !local.IsValid() {
		return name, nil
	}
	return s.addrName(ctx, l.Hostnames, local, name)
}

// addrName returns the name that a table has for an address, or fallback.
func (s *Service) addrName(ctx context.Context, ref config.TableRef, ip netip.Addr, fallback string) (string, error) {
	t, err := s.tables.get(ref)
	if err != nil {
		return "", err
	}
	name, err := t.AddrName(ctx, ip)
	if errors.Is(err, table.ErrNotFound) {
		return fallback, nil
	}
	return name, err
}
