package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"tabard/internal/config"
)

// Where things are when nothing else is said.
const (
	defaultConfig  = "/etc/tabard/tabard.conf"
	defaultControl = "/run/tabard/tabard.sock"
	defaultQueue   = "/var/spool/tabard/queue.db"
	configEnv      = "TABARD_CONF"
)

// globals are the flags that every subcommand knows.
type globals struct {
	config  string
	name    string // of the configuration, in a database
	macros  []string
	dialect string // of a configuration that says nothing of it
	json    bool
}

func newRoot() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "tabard",
		Short: "A mail transfer agent that keeps all it knows in tables",
		Long: `Tabard is a mail transfer agent whose whole working knowledge comes from tables:
certificates and keys, credentials, relay routes, domains, aliases.

Start with:  tabard quickstart`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return withCode(exUsage, err) })
	flags := root.PersistentFlags()
	flags.StringVarP(&g.config, "config", "c", "", "configuration `file`, or sqlite:FILE, postgres://... or postgres:FILE.conf for a database with it (default "+defaultConfig+", or $"+configEnv+")")
	flags.StringVar(&g.name, "config-name", "", "`name` of the configuration in the database (default the host's name if there is one, else \"default\")")
	flags.StringArrayVarP(&g.macros, "define", "D", nil, "set a macro of the configuration, `name=value`")
	flags.StringVar(&g.dialect, "dialect", "", "`dialect` of relay URLs in a configuration that does not name one, tabard or opensmtpd (default tabard)")
	flags.BoolVar(&g.json, "json", false, "print lists as JSON")
	root.AddCommand(
		newQuickstart(), newRun(g), newReload(g), newConfig(g), newCheck(g), newMigrate(g), newStatus(g),
		newUser(g), newDomain(g), newAlias(g), newSender(g), newRelay(g), newTLSPolicy(g), newCert(g), newDKIM(g), newCA(g), newIdentity(g), newSeal(g),
		newLookup(g), newExplain(g), newLog(g), newQueue(g), newTrace(g), newRoute(g), newSendmail(), newMan(),
	)
	return root
}

// configPath returns the configuration file to use when flag says so, or not.
func configPath(flag string) string {
	if flag != "" {
		return flag
	}
	if env := os.Getenv(configEnv); env != "" {
		return env
	}
	return defaultConfig
}

// path names the configuration's source, without a password.
func (g *globals) path() string { return g.source().String() }

func (g *globals) source() confSource {
	return confSource{path: configPath(g.config), name: g.name, macros: g.macros, dialect: g.dialect}
}

// load reads the configuration that the flags name.
func (g *globals) load() (*config.Config, error) {
	l, err := g.source().load(context.Background())
	return l.cfg, err
}

func loadConfig(path string, macros ...string) (*config.Config, error) {
	l, err := confSource{path: path, macros: macros}.load(context.Background())
	return l.cfg, err
}

// serverName returns the name that the server goes by: `hostname`, else the
// first line of the mailname file beside the configuration or in /etc, else the
// system's host name.
func serverName(cfg *config.Config, path string) string {
	if cfg.Hostname != "" {
		return cfg.Hostname
	}
	files := []string{"/etc/mailname"}
	if !(confSource{path: path}).database() {
		files = append([]string{filepath.Join(filepath.Dir(path), "mailname")}, files...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				return strings.ToLower(line)
			}
		}
	}
	if name, err := os.Hostname(); err == nil {
		return strings.ToLower(name)
	}
	return "localhost"
}

func controlSocket(cfg *config.Config) string {
	if cfg.Control != "" {
		return cfg.Control
	}
	return defaultControl
}

// submitSocket is the UNIX socket that takes mail from programs on this machine;
// it stands beside the control socket.
func submitSocket(cfg *config.Config) string {
	return filepath.Join(filepath.Dir(controlSocket(cfg)), "submit.sock")
}

// controlLine finds the control socket in a text that has a fault elsewhere.
var controlLine = regexp.MustCompile(`(?m)^[ \t]*control[ \t]+(?:"([^"\n]+)"|([^"\s#]+))`)

// controlPath is the control socket of the server that the flags mean. A
// configuration with a fault must not keep anybody from the server that runs on
// the one before.
func (g *globals) controlPath() (string, error) {
	src := g.source()
	text, err := src.text(context.Background())
	if err != nil && src.database() {
		return defaultControl, nil // the server goes on without it, too
	}
	if err != nil {
		return "", err
	}
	cfg, err := src.parse(text)
	if err == nil {
		return controlSocket(cfg.cfg), nil
	}
	if m := controlLine.FindStringSubmatch(text.Text); m != nil {
		return m[1] + m[2], nil
	}
	return defaultControl, nil
}

// printJSON writes v for programs. What cannot be written has the code exIOErr.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return withCode(exIOErr, enc.Encode(v))
}

// printList writes rows for people, in columns under a heading, or v as JSON.
func (g *globals) printList(cmd *cobra.Command, v any, head []string, rows [][]string) error {
	if g.json {
		return printJSON(cmd.OutOrStdout(), v)
	}
	return printColumns(cmd.OutOrStdout(), head, rows)
}
