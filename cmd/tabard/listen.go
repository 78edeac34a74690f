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

// socketWish is a socket that a configuration asks for.
type socketWish struct {
	boundListener
	network string // empty: the UNIX socket
	addr    string // or its path
	pos     config.Pos
}

// wishes lists the sockets of every listener.
func wishes(cfg *config.Config) ([]socketWish, error) {
	var all []socketWish
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		if l.Socket {
			all = append(all, socketWish{boundListener{i, "socket"}, "", submitSocket(cfg), l.Pos})
			continue
		}
		hosts, err := listenHosts(l)
		if err != nil {
			return nil, exitf(exConfig, "%s: %w", l.Pos, err)
		}
		for _, h := range hosts {
			addr, network := net.JoinHostPort(h, l.Port), listenNetwork(l.Family)
			name := addr
			if network != "tcp" {
				name = network + " " + addr
			}
			all = append(all, socketWish{boundListener{i, name}, network, addr, l.Pos})
		}
	}
	return all, nil
}

// open opens the socket beside those that are about to go.
func (w *socketWish) open(leaving []*os.File) (*os.File, error) {
	if w.network == "" {
		return bindSubmit(w.addr)
	}
	f, err := privsep.ListenBeside(w.network, w.addr, leaving)
	if err != nil {
		return nil, exitf(exUnavailable, "%s: listen on %s: %w", w.pos, w.addr, err)
	}
	return f, nil
}

// bindAll opens the sockets of every listener but those that are open already.
// The caller owns the files.
func bindAll(cfg *config.Config, have []privsep.Listener) (s sockets, err error) {
	defer func() {
		if err != nil {
			closeAll(s.fresh)
		}
	}()
	wanted, err := wishes(cfg)
	if err != nil {
		return s, err
	}
	leaving := unwanted(have, wanted)
	for _, w := range wanted {
		named := func(l privsep.Listener) bool { return l.Name == w.Name }
		if slices.ContainsFunc(s.files, named) {
			return s, exitf(exConfig, "%s: listen on %s: named twice", w.pos, w.Name)
		}
		s.bound = append(s.bound, w.boundListener)
		if i := slices.IndexFunc(have, named); i >= 0 {
			s.files = append(s.files, have[i])
			continue
		}
		f, err := w.open(leaving)
		if err != nil {
			return s, err
		}
		l := privsep.Listener{Name: w.Name, File: f}
		s.files, s.fresh = append(s.files, l), append(s.fresh, l)
	}
	return s, nil
}

// unwanted returns the TCP sockets of have that nobody wishes for.
func unwanted(have []privsep.Listener, wanted []socketWish) []*os.File {
	var files []*os.File
	for _, l := range have {
		kept := slices.ContainsFunc(wanted, func(w socketWish) bool { return w.Name == l.Name })
		if !kept && l.Name != "socket" {
			files = append(files, l.File)
		}
	}
	return files
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
