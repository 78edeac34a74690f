package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"tabard/internal/config"
	"tabard/internal/privsep"
)

// submitMode lets every local user hand in mail, as sendmail always did.
const submitMode = 0o666

// sockets are those of a configuration: files, what each is for, and which of
// them were opened for it.
type sockets struct {
	files []privsep.Listener
	fresh []privsep.Listener
	bound []boundListener
}

// add takes over the open socket called name from have, or else opens it.
func (s *sockets) add(listener int, name string, have []privsep.Listener, open func() (*os.File, error)) error {
	s.bound = append(s.bound, boundListener{listener, name})
	named := func(l privsep.Listener) bool { return l.Name == name }
	if slices.ContainsFunc(s.files, named) {
		return fmt.Errorf("listen on %s: named twice", name)
	}
	if i := slices.IndexFunc(have, named); i >= 0 {
		s.files = append(s.files, have[i])
		return nil
	}
	f, err := open()
	if err != nil {
		return err
	}
	l := privsep.Listener{Name: name, File: f}
	s.files, s.fresh = append(s.files, l), append(s.fresh, l)
	return nil
}

// unwanted returns those of have that s has not.
func (s *sockets) unwanted(have []privsep.Listener) []privsep.Listener {
	return slices.DeleteFunc(slices.Clone(have), func(l privsep.Listener) bool {
		return slices.ContainsFunc(s.files, func(kept privsep.Listener) bool { return kept.File == l.File })
	})
}

// bindAll opens the sockets of every listener but those that are open already.
// The caller owns the files.
func bindAll(cfg *config.Config, have []privsep.Listener) (s sockets, err error) {
	defer func() {
		if err != nil {
			closeAll(s.fresh)
		}
	}()
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		if l.Socket {
			if err := s.add(i, "socket", have, func() (*os.File, error) { return bindSubmit(submitSocket(cfg)) }); err != nil {
				return s, err
			}
			continue
		}
		hosts, err := listenHosts(l)
		if err != nil {
			return s, exitf(exConfig, "%s: %w", l.Pos, err)
		}
		for _, h := range hosts {
			addr, network := net.JoinHostPort(h, l.Port), listenNetwork(l.Family)
			name := addr
			if network != "tcp" {
				name = network + " " + addr
			}
			if err := s.add(i, name, have, func() (*os.File, error) { return privsep.Listen(network, addr) }); err != nil {
				return s, exitf(exUnavailable, "%s: listen on %s: %w", l.Pos, addr, err)
			}
		}
	}
	return s, nil
}

// withSocket adds the local socket, which exists whether it is configured or
// not.
func withSocket(cfg *config.Config) {
	for i := range cfg.Listeners {
		if cfg.Listeners[i].Socket {
			return
		}
	}
	cfg.Listeners = append(cfg.Listeners, config.Listener{Socket: true})
}

func closeAll(files []privsep.Listener) {
	for _, l := range files {
		_ = l.File.Close()
	}
}

// bindSubmit opens the UNIX socket for programs on this machine.
func bindSubmit(path string) (*os.File, error) {
	l, err := privsep.ListenUnix(path, submitMode)
	if err != nil {
		return nil, exitf(exUnavailable, "submission socket: %w", err)
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	return l.File()
}

func listenNetwork(family int) string {
	switch family {
	case 4:
		return "tcp4"
	case 6:
		return "tcp6"
	}
	return "tcp"
}

// listenHosts returns the addresses that a listener's host, address or
// interface stands for.
func listenHosts(l *config.Listener) ([]string, error) {
	if l.Host == "" || l.Host == "*" {
		return []string{""}, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(l.Host, "["), "]")
	if ip := net.ParseIP(host); ip != nil {
		return []string{host}, nil
	}
	ips, err := interfaceIPs(host)
	if err != nil {
		if ips, err = net.LookupIP(host); err != nil {
			return nil, fmt.Errorf("listen on %q: neither an interface nor a host name: %w", host, err)
		}
	}
	var hosts []string
	for _, ip := range ips {
		if v4 := ip.To4() != nil; l.Family == 4 && !v4 || l.Family == 6 && v4 {
			continue
		}
		hosts = append(hosts, ip.String())
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("listen on %q: no address of this family", host)
	}
	return hosts, nil
}

func interfaceIPs(name string) ([]net.IP, error) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	addrs, err := ifc.Addrs()
	if err != nil {
		return nil, err
	}
	var ips []net.IP
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			ips = append(ips, n.IP)
		}
	}
	return ips, nil
}
