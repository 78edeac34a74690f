package backends

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tabard/backends/ldap"
	"tabard/backends/postgres"
	"tabard/backends/socketmap"
	"tabard/backends/sqlite"
	"tabard/internal/config"
	"tabard/internal/pgsource"
)

// Needs is what a process has to be able to do that opens tables, beyond reading
// files and making connections.
type Needs struct {
	// Dirs are the directories of SQLite databases: beside each SQLite keeps files
	// of its own, also for those who only read.
	Dirs []string
	// Ports are the TCP ports of databases, directories and socketmaps.
	Ports []uint16
	// Programs are the names of the tables that are programs.
	Programs []string
}

// NeedsOf says what the tables need. The files that they name are read. What one
// table needs is missing when those of it cannot be; the error says so for all of
// them.
func NeedsOf(tables []config.Table) (Needs, error) {
	var n Needs
	var errs []error
	for _, t := range tables {
		if err := n.add(t); err != nil {
			errs = append(errs, fmt.Errorf("%s: table %s: %w", t.Pos, t.Name, err))
		}
	}
	slices.Sort(n.Ports)
	n.Ports = slices.Compact(n.Ports)
	return n, errors.Join(errs...)
}

func (n *Needs) add(t config.Table) error {
	switch t.Kind {
	case "static", "file":
	case "sqlite":
		path, _, err := sqlite.Database(t.Source)
		if err != nil {
			return err
		}
		n.Dirs = append(n.Dirs, filepath.Dir(path))
		// SQLite puts them beside the file, not beside a link to it.
		if real, err := filepath.EvalSymlinks(path); err == nil && filepath.Dir(real) != filepath.Dir(path) {
			n.Dirs = append(n.Dirs, filepath.Dir(real))
		}
	case "postgres":
		return n.postgres(t)
	case "ldap":
		addrs, err := ldap.Addresses(t.Source, t.Name)
		return errors.Join(err, n.addresses(addrs...))
	case "socketmap":
		network, addr, err := socketmap.Address(t.Source, t.Name)
		if err != nil || network != "tcp" {
			return err
		}
		return n.addresses(addr)
	default: // as in Open
		n.Programs = append(n.Programs, t.Name)
	}
	return nil
}

func (n *Needs) postgres(t config.Table) error {
	conninfo, _, err := postgres.Database(t.Source)
	if err != nil {
		return err
	}
	c, err := pgsource.Parse(conninfo)
	if err != nil {
		return err
	}
	add := func(host string, port uint16) {
		if !strings.HasPrefix(host, "/") && !strings.HasPrefix(host, "@") {
			n.Ports = append(n.Ports, port)
		}
	}
	add(c.Host, c.Port)
	for _, f := range c.Fallbacks {
		add(f.Host, f.Port)
	}
	return nil
}

// addresses adds the ports of HOST:PORT each.
func (n *Needs) addresses(addrs ...string) error {
	for _, a := range addrs {
		_, text, err := net.SplitHostPort(a)
		if err != nil {
			return err
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			named, lookupErr := net.LookupPort("tcp", text)
			if lookupErr != nil {
				return lookupErr
			}
			port = uint64(named)
		}
		n.Ports = append(n.Ports, uint16(port))
	}
	return nil
}

// TempDirs are where SQLite puts what does not fit into memory.
func TempDirs() []string {
	var dirs []string
	for _, dir := range []string{os.TempDir(), "/var/tmp", "/tmp"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
