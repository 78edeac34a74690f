package posttest

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tabard/internal/unpacked"
)

// Places in the package.
const (
	daemons  = "usr/lib/postfix/sbin"
	shared   = "usr/lib/postfix"
	commands = "usr/sbin"
)

// Accounts that every Debian has. Postfix wants an owner of its queue and a
// group for submission of its own, so that they stay apart from one another;
// for a test, any that own nothing will do.
const (
	ownerUser   = "daemon"
	dropGroup   = "games"
	mailboxUser = "nobody"
)

// libraries is a search path for the package's shared libraries, and those of
// packages it depends on that were unpacked with it.
func libraries(root string) string {
	dirs := []string{filepath.Join(root, shared)}
	if root == "/" {
		return dirs[0]
	}
	for _, dir := range unpacked.Libraries(root) {
		dirs = append(dirs, filepath.Join(root, dir))
	}
	return strings.Join(dirs, ":")
}

func (s *Server) config() string     { return filepath.Join(s.dir, "config") }
func (s *Server) logFile() string    { return filepath.Join(s.dir, "log") }
func (s *Server) authSocket() string { return filepath.Join(s.dir, "logins") }
func (s *Server) mailbox() string    { return filepath.Join(s.dir, "mail", "all") }

// accounts are the numbers behind the names above.
type accounts struct{ owner, ownerGroup, drop, mailbox, mailboxGroup int }

func lookupAccounts() (accounts, error) {
	var a accounts
	owner, err := user.Lookup(ownerUser)
	if err != nil {
		return a, err
	}
	box, err := user.Lookup(mailboxUser)
	if err != nil {
		return a, err
	}
	drop, err := user.LookupGroup(dropGroup)
	if err != nil {
		return a, err
	}
	for _, n := range []struct {
		to   *int
		from string
	}{{&a.owner, owner.Uid}, {&a.ownerGroup, owner.Gid}, {&a.drop, drop.Gid}, {&a.mailbox, box.Uid}, {&a.mailboxGroup, box.Gid}} {
		if *n.to, err = strconv.Atoi(n.from); err != nil {
			return a, err
		}
	}
	return a, nil
}

// configure makes the directories and both configuration files.
func (s *Server) configure(opt Options) error {
	acc, err := lookupAccounts()
	if err != nil {
		return err
	}
	if err := s.makeDirs(acc); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.config(), "main.cf"), []byte(s.mainCF(opt, acc)), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.config(), "master.cf"), []byte(s.masterCF(opt)), 0o644)
}

// makeDirs makes the directories with the owners and modes that `postfix check`
// would give them.
func (s *Server) makeDirs(acc accounts) error {
	for _, d := range []struct {
		name     string
		mode     os.FileMode
		uid, gid int
	}{
		{".", 0o755, 0, 0},
		{"config", 0o755, 0, 0},
		{"data", 0o700, acc.owner, acc.ownerGroup},
		{"mail", 0o700, acc.mailbox, acc.mailboxGroup},
		{"queue", 0o755, 0, 0},
		{"queue/pid", 0o755, 0, 0},
		{"queue/private", 0o700, acc.owner, 0},
		{"queue/public", 0o710, acc.owner, acc.drop},
		{"queue/maildrop", 0o730, acc.owner, acc.drop},
	} {
		if err := s.makeDir(d.name, d.mode, d.uid, d.gid); err != nil {
			return err
		}
	}
	for _, name := range []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved", "trace"} {
		if err := s.makeDir("queue/"+name, 0o700, acc.owner, 0); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) makeDir(name string, mode os.FileMode, uid, gid int) error {
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(path, mode) // whatever the umask says
}

// mainCF is main.cf. Where a name is given twice, Postfix takes the last, with
// a warning: so ours are left out when Options.Main has them.
func (s *Server) mainCF(opt Options, acc accounts) string {
	var b strings.Builder
	given := make(map[string]bool)
	for _, line := range opt.Main {
		name, _, _ := strings.Cut(line, "=")
		given[strings.TrimSpace(name)] = true
	}
	for _, line := range slices.Concat(s.placesCF(opt), s.mailCF(opt, acc), s.loginCF(opt), tlsCF(opt)) {
		if !given[line[0]] {
			fmt.Fprintf(&b, "%s = %s\n", line[0], line[1])
		}
	}
	for _, line := range opt.Main {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// placesCF says where everything is: Debian's own places are compiled in.
func (s *Server) placesCF(opt Options) [][2]string {
	return [][2]string{
		{"compatibility_level", "3.6"},
		{"daemon_directory", filepath.Join(opt.Root, daemons)},
		{"command_directory", filepath.Join(opt.Root, commands)},
		{"shlib_directory", filepath.Join(opt.Root, shared)},
		{"sendmail_path", filepath.Join(opt.Root, commands, "sendmail")},
		{"meta_directory", s.config()},
		{"queue_directory", filepath.Join(s.dir, "queue")},
		{"data_directory", filepath.Join(s.dir, "data")},
		{"maillog_file", s.logFile()},
		{"maillog_file_prefixes", s.dir},
		{"mail_owner", ownerUser},
		{"setgid_group", dropGroup},
		{"default_privs", mailboxUser},
		{"import_environment", "MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH=" + libraries(opt.Root)},
		{"export_environment", "MAIL_CONFIG TZ LANG LD_LIBRARY_PATH"},
		{"inet_interfaces", "127.0.0.1"},
		{"inet_protocols", "ipv4"},
	}
}

// mailCF says which mail is taken and where it goes.
func (s *Server) mailCF(opt Options, acc accounts) [][2]string {
	domains := opt.Domains
	host := opt.Hostname
	if host == "" {
		host = "postfix.example"
	}
	if len(domains) == 0 {
		domains = []string{host}
	}
	transport := "virtual"
	if opt.Discard {
		transport = "discard:"
	}
	elsewhere := "error:5.1.2 this postfix relays nowhere"
	if opt.Relayhost != "" {
		elsewhere = "smtp"
	}
	return [][2]string{
		{"myhostname", host},
		{"mydestination", ""},
		{"mynetworks", "127.0.0.0/8"},
		{"alias_maps", ""},
		{"alias_database", ""},
		{"local_recipient_maps", ""},
		{"biff", "no"},
		{"append_dot_mydomain", "no"},
		{"smtputf8_enable", "yes"},
		{"virtual_transport", transport},
		{"virtual_mailbox_domains", strings.Join(domains, " ")},
		{"virtual_mailbox_maps", "static:all/"},
		{"virtual_mailbox_base", filepath.Dir(s.mailbox())},
		{"virtual_minimum_uid", "1"},
		{"virtual_uid_maps", fmt.Sprintf("static:%d", acc.mailbox)},
		{"virtual_gid_maps", fmt.Sprintf("static:%d", acc.mailboxGroup)},
		{"default_transport", elsewhere},
		{"relayhost", opt.Relayhost},
		{"smtp_host_lookup", "native"},
		{"smtp_dns_support_level", "disabled"},
		{"smtpd_relay_restrictions", "permit_mynetworks, reject"},
		{"smtpd_client_connection_count_limit", "0"},
	}
}

// loginCF says who may log in.
func (s *Server) loginCF(opt Options) [][2]string {
	if opt.Users == nil {
		return [][2]string{{"smtpd_sasl_auth_enable", "no"}}
	}
	return [][2]string{
		{"smtpd_sasl_auth_enable", "yes"},
		{"smtpd_sasl_type", "dovecot"},
		{"smtpd_sasl_path", s.authSocket()},
		{"smtpd_tls_auth_only", "yes"},
		{"smtpd_sasl_authenticated_header", "yes"},
	}
}

func tlsCF(opt Options) [][2]string {
	server, client := opt.TLS, opt.ClientTLS
	if server == "" {
		server = "none"
		if opt.CertFile != "" {
			server = "may"
		}
	}
	if client == "" {
		client = "may"
	}
	out := [][2]string{
		{"smtpd_tls_security_level", server},
		{"smtpd_tls_received_header", "yes"},
		{"smtpd_tls_loglevel", "1"},
		{"smtp_tls_security_level", client},
		{"smtp_tls_loglevel", "1"},
		{"tls_random_source", "dev:/dev/urandom"},
	}
	if opt.CertFile != "" {
		out = append(out, [2]string{"smtpd_tls_cert_file", opt.CertFile}, [2]string{"smtpd_tls_key_file", opt.KeyFile})
	}
	if opt.CAFile != "" {
		out = append(out, [2]string{"smtp_tls_CAfile", opt.CAFile}, [2]string{"smtpd_tls_CAfile", opt.CAFile})
	}
	return out
}

// masterCF is master.cf; nothing is chrooted.
func (s *Server) masterCF(opt Options) string {
	services := []string{
		s.Addr + " inet n - n - - smtpd",
		"pickup unix n - n 60 1 pickup",
		"cleanup unix n - n - 0 cleanup",
		"qmgr unix n - n 300 1 qmgr",
		"tlsmgr unix - - n 1000? 1 tlsmgr",
		"rewrite unix - - n - - trivial-rewrite",
		"bounce unix - - n - 0 bounce",
		"defer unix - - n - 0 bounce",
		"trace unix - - n - 0 bounce",
		"verify unix - - n - 1 verify",
		"flush unix n - n 1000? 0 flush",
		"proxymap unix - - n - - proxymap",
		"proxywrite unix - - n - 1 proxymap",
		"smtp unix - - n - - smtp",
		"relay unix - - n - - smtp",
		"showq unix n - n - - showq",
		"error unix - - n - - error",
		"retry unix - - n - - error",
		"discard unix - - n - - discard",
		"virtual unix - n n - - virtual",
		"lmtp unix - - n - - lmtp",
		"anvil unix - - n - 1 anvil",
		"scache unix - - n - 1 scache",
		"postlog unix-dgram n - n - 1 postlogd",
	}
	for i, options := range opt.Listeners {
		services = append(services, s.Addrs[i+1]+" inet n - n - - smtpd "+options)
	}
	return strings.Join(append(services, opt.Master...), "\n") + "\n"
}
