package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/internal/password"
	"tabard/internal/selfca"
)

// renewDays is how long before its end quickstart replaces its certificate.
const renewDays = 30

// quickstart is a server that sets itself up.
type quickstart struct {
	run    runOptions
	params config.QuickstartParams
	user   string
	out    io.Writer
	fresh  string // the password of a user made just now
}

func newQuickstart() *cobra.Command {
	q := &quickstart{}
	cmd := &cobra.Command{
		Use:   "quickstart [DIR]",
		Short: "Set up a complete server in a directory, if it is not there yet, and run it",
		Long: `Quickstart makes what a mail server needs in DIR (default ./tabard-data): a
configuration with comments, a database with a first user, an own certificate
authority and a certificate for localhost. It then runs the server on loopback,
without root. What is there already is used as it is.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "tabard-data"
			if len(args) > 0 {
				dir = args[0]
			}
			q.out = cmd.OutOrStdout()
			return q.start(cmd, dir)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.params.SMTP, "smtp", "127.0.0.1:2525", "`address` for mail from other servers")
	f.StringVar(&q.params.SMTPS, "smtps", "127.0.0.1:2465", "`address` for users, TLS from the first byte")
	f.StringVar(&q.params.Submission, "submission", "127.0.0.1:2587", "`address` for users, STARTTLS")
	f.StringVar(&q.user, "user", "test@localhost", "mail `address` of the first user")
	q.run.flags(cmd)
	return cmd
}

func (q *quickstart) start(cmd *cobra.Command, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	q.params.Dir, q.params.Hostname = dir, "localhost"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return withCode(exCantCreat, err)
	}
	path := filepath.Join(dir, "tabard.conf")
	made, err := q.writeConfig(path)
	if err != nil {
		return err
	}
	for _, name := range []string{"smtp", "smtps", "submission"} {
		if !made && cmd.Flags().Changed(name) {
			return exitf(exUsage, "--%s: %s is there already: its addresses count, change them there", name, path)
		}
	}
	if err := q.provision(cmd.Context()); err != nil {
		return withCode(exCantCreat, err)
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	return runServer(cmd.Context(), cfg, path, q.run, func() { q.greet(cfg) })
}

// rootNote is added to the configuration when quickstart is run by root: the
// processes that face the network become nobody; the others stay the owner of
// the directory, because they need its files.
const rootNote = `
# Started as root, the processes that face the network give that up at once. On a
# real server leave these lines out: each process then becomes a user of its own.
process smtpd user nobody
process mta user nobody
process metrics user nobody
process lookup user root
process queue user root
process deliver user root
`

// writeConfig writes the embedded configuration unless there is one.
func (q *quickstart) writeConfig(path string) (made bool, err error) {
	text, err := config.Quickstart(q.params)
	if err != nil {
		return false, withCode(exUsage, err)
	}
	if os.Getuid() == 0 {
		text = append(text, rootNote...)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, withCode(exCantCreat, err)
	}
	_, err = f.Write(text)
	return true, withCode(exIOErr, errors.Join(err, f.Close()))
}

// provision fills the database with what is missing, and prints the first
// user's name, with the password if it is made now.
func (q *quickstart) provision(ctx context.Context) error {
	if ctx == nil {
		ctx = context.Background()
	}
	db, err := provision.Create(ctx, filepath.Join(q.params.Dir, "mail.db"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := q.firstUser(ctx, db); err != nil {
		return err
	}
	return q.certificate(ctx, db)
}

func (q *quickstart) firstUser(ctx context.Context, db *provision.DB) error {
	users, err := db.ListUsers(ctx)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		q.user = users[0].Name
		_, err = fmt.Fprintf(q.out, "user: %s\n", q.user)
		return err
	}
	a, err := address.Parse(q.user)
	if err != nil || a.Domain == "" {
		return exitf(exUsage, "--user %q: want a mail address", q.user)
	}
	q.user, q.fresh = a.String(), rand.Text()[:20]
	hash, err := password.Hash(q.fresh)
	if err != nil {
		return err
	}
	domains, err := db.ListDomains(ctx)
	if err != nil {
		return err
	}
	if len(domains) == 0 {
		if err := db.AddDomain(ctx, a.Domain); err != nil {
			return err
		}
	}
	if err := addUser(ctx, db, q.user, hash, nil, nil, ""); err != nil {
		return err
	}
	// RFC 5321 section 4.5.1: postmaster must be there.
	if err := db.AddAlias(ctx, "postmaster", q.user); err != nil {
		return err
	}
	_, err = fmt.Fprintf(q.out, "user: %s\npassword: %s\n", q.user, q.fresh)
	return err
}

// lasts reports whether a certificate serves for more than days.
func lasts(c provision.Certificate, days int) bool {
	return c.Fault == nil && !slices.ContainsFunc(c.Leaves, func(leaf *x509.Certificate) bool { return daysLeft(leaf, time.Now()) <= days })
}

// certificate makes an authority and a certificate for localhost, when there is
// none or it is about to expire.
func (q *quickstart) certificate(ctx context.Context, db *provision.DB) error {
	all, err := db.ListCertificates(ctx, nil)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Name != q.params.Hostname || lasts(c, renewDays) {
			continue
		}
		if own, err := q.own(ctx, db, c); err != nil || !own {
			return err
		}
		all = nil
		break
	}
	if len(all) > 0 {
		return nil
	}
	pair, authority, err := selfSigned([]string{q.params.Hostname, "127.0.0.1", "::1"}, selfca.ECDSA)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(q.params.Dir, "ca.pem"), []byte(authority), 0o644); err != nil {
		return err
	}
	if err := db.SetAuthority(ctx, q.params.Hostname, authority); err != nil {
		return err
	}
	return db.SetCertificates(ctx, q.params.Hostname, pair)
}

// own reports whether quickstart made a certificate: only those are replaced.
func (q *quickstart) own(ctx context.Context, db *provision.DB, c provision.Certificate) (bool, error) {
	authority, err := db.Authority(ctx, q.params.Hostname)
	if err != nil {
		return false, err
	}
	ca, _ := pem.Decode([]byte(authority))
	leaf, _ := pem.Decode([]byte(c.Chain))
	if ca == nil || leaf == nil {
		return false, nil
	}
	caCert, err := x509.ParseCertificate(ca.Bytes)
	if err != nil {
		return false, nil
	}
	cert, err := x509.ParseCertificate(leaf.Bytes)
	return err == nil && cert.CheckSignatureFrom(caCert) == nil, nil
}

// greet tells a person what to do with the server.
func (q *quickstart) greet(cfg *config.Config) {
	var names []string
	for _, l := range cfg.Listeners {
		switch {
		case l.Socket:
		case l.TLS == config.TLSImplicit:
			names = append(names, fmt.Sprintf("listening: %s:%s (users, TLS)", l.Host, l.Port))
		case l.Auth != config.AuthNone:
			names = append(names, fmt.Sprintf("listening: %s:%s (users, STARTTLS)", l.Host, l.Port))
		default:
			names = append(names, fmt.Sprintf("listening: %s:%s (mail from other servers)", l.Host, l.Port))
		}
	}
	local, domain, _ := strings.Cut(q.user, "@")
	secret := q.fresh
	if secret == "" {
		secret = "PASSWORD"
	}
	_, _ = fmt.Fprintf(q.out, `%s
configuration: %s
mail arrives in: %s
try: swaks --server %s --tls --auth PLAIN --auth-user %s --auth-password %s --from %s --to %s
`, strings.Join(names, "\n"), filepath.Join(q.params.Dir, "tabard.conf"), filepath.Join(q.params.Dir, "mail", domain, local),
		q.params.Submission, q.user, secret, q.user, q.user)
}

func newSendmail() *cobra.Command {
	return &cobra.Command{
		Use:   "sendmail [sendmail options] [recipient...]",
		Short: "Hand in a message from standard input, as sendmail(8) does",
		Long: `Sendmail reads a message from standard input and hands it to the running server
through its local socket. Linked as "sendmail", the program behaves so by itself;
linked as "mailq" it lists the queue as OpenSMTPD does.

Options: -t recipients from the header, -i a lone dot does not end the message,
-f sender, -F full name, -N and -R and -V delivery status notifications,
-C or -c configuration file. The exit code is one of sysexits(3).`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
				return cmd.Help()
			}
			if code := sendmailMain(args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()); code != 0 {
				return &exitError{code, errSilent}
			}
			return nil
		},
	}
}
