package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"tabard/internal/config"
	"tabard/internal/privsep"
)

// submitMode lets every local user hand in mail, as sendmail always did.
const submitMode = 0o666

// bindAll opens the sockets of every listener. The caller owns the files.
func bindAll(cfg *config.Config) (files []privsep.Listener, bound []boundListener, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		if l.Socket {
			f, err := bindSubmit(submitSocket(cfg))
			if err != nil {
				return files, nil, err
			}
			files = append(files, privsep.Listener{Name: "socket", File: f})
			bound = append(bound, boundListener{i, "socket"})
			continue
		}
		hosts, err := listenHosts(l)
		if err != nil {
			return files, nil, exitf(exConfig, "%s: %w", l.Pos, err)
		}
		for _, h := range hosts {
			addr := net.JoinHostPort(h, l.Port)
			f, err := privsep.Listen(listenNetwork(l.Family), addr)
			if err != nil {
				return files, nil, exitf(exUnavailable, "%s: listen on %s: %w", l.Pos, addr, err)
			}
			files = append(files, privsep.Listener{Name: addr, File: f})
			bound = append(bound, boundListener{i, addr})
		}
	}
	return files, bound, nil
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
