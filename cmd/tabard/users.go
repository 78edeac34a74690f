package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

	"tabard/internal/config"
	"tabard/internal/privsep"
)

// defaultUsers are the system users that the processes become when Tabard is
// started as root and the configuration names no others.
func defaultUsers() map[string]string {
	return map[string]string{
		procLookup: "_tabard-lookup", procSMTPD: "_tabard-smtpd", procQueue: "_tabard-queue",
		procMTA: "_tabard-mta", procDeliver: "_tabard-mail", procMetrics: "_tabard-metrics",
	}
}

// identity is who a process becomes, and where.
type identity struct {
	cred   *privsep.Credential // nil: it stays who started Tabard
	chroot string
}

// identities finds the users of all processes. Nothing changes user unless
// Tabard is started as root.
func identities(cfg *config.Config) (map[string]identity, error) {
	ids := make(map[string]identity)
	if os.Getuid() != 0 {
		return ids, nil
	}
	for name := range defaultUsers() {
		if name == procMetrics && cfg.Metrics == "" {
			continue
		}
		id, err := identityOf(cfg, name)
		if err != nil {
			return nil, err
		}
		ids[name] = id
	}
	return ids, nil
}

// identityOf finds the user of one process, for a start as root.
func identityOf(cfg *config.Config, name string) (identity, error) {
	var p config.Process
	for _, configured := range cfg.Processes {
		if configured.Name == name {
			p = configured
		}
	}
	if p.User == "" {
		p.User = defaultUsers()[name]
	}
	cred, err := privsep.LookupUser(p.User)
	if err != nil {
		return identity{}, exitf(exConfig, "process %s: %w; make it with `useradd --system --no-create-home --shell /usr/sbin/nologin %s`, or write `process %s user NAME` into the configuration",
			name, err, p.User, name)
	}
	if p.Group != "" {
		if cred.GID, err = lookupGroup(p.Group); err != nil {
			return identity{}, exitf(exConfig, "process %s: %w", name, err)
		}
	}
	if cred.UID == 0 {
		cred = nil // it stays root, because the configuration says so
	}
	return identity{cred, chroot(name, p.Chroot, slices.ContainsFunc(cfg.Tables, holdsSocket))}, nil
}

// chroot is where a process is locked up when the configuration does not say.
// lookup and deliver have files to read and write; queue gets its spool; relays that
// are sockets have to be where mta is.
func chroot(name, configured string, sockets bool) string {
	switch {
	case configured != "":
		return configured
	case name == procSMTPD, name == procMTA && !sockets, name == procMetrics:
		return privsep.EmptyRoot
	}
	return ""
}

// spool makes the queue's directory, owned by who the queue becomes.
func spool(path string, id identity) error {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); err == nil {
		return nil // it is the administrator's
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("queue directory: %w", err)
	}
	if id.cred == nil {
		return nil
	}
	return os.Chown(dir, id.cred.UID, id.cred.GID)
}

func lookupGroup(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
