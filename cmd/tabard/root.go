package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

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
	config string
	macros []string
	json   bool
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
	flags.StringVarP(&g.config, "config", "c", "", "configuration `file` (default "+defaultConfig+", or $"+configEnv+")")
	flags.StringArrayVarP(&g.macros, "define", "D", nil, "set a macro of the configuration, `name=value`")
	flags.BoolVar(&g.json, "json", false, "print lists as JSON")
	root.AddCommand(
		newQuickstart(), newRun(g), newCheck(g), newMigrate(g), newStatus(g),
		newUser(g), newDomain(g), newAlias(g), newSender(g), newRelay(g), newCert(g),
		newLookup(g), newQueue(g), newSendmail(), newMan(),
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

func (g *globals) path() string { return configPath(g.config) }

// load reads the configuration that the flags name.
func (g *globals) load() (*config.Config, error) {
	return loadConfig(g.path(), g.macros...)
}

func loadConfig(path string, macros ...string) (*config.Config, error) {
	opts := config.Options{Macros: map[string]string{}}
	for _, m := range macros {
		name, value, ok := strings.Cut(m, "=")
		if !ok || name == "" {
			return nil, exitf(exUsage, "-D %q: want name=value", m)
		}
		opts.Macros[name] = value
	}
	if _, err := os.Stat(path); err != nil {
		return nil, exitf(exConfig, "no configuration: %w (name one with -c, or try `tabard quickstart`)", err)
	}
	cfg, err := config.Load(path, opts)
	return cfg, withCode(exConfig, err)
}

// serverName returns the name that the server goes by: `hostname`, else the
// first line of the mailname file beside the configuration or in /etc, else the
// system's host name.
func serverName(cfg *config.Config, path string) string {
	if cfg.Hostname != "" {
		return cfg.Hostname
	}
	for _, file := range []string{filepath.Join(filepath.Dir(path), "mailname"), "/etc/mailname"} {
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

// printJSON writes v for programs.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printList writes rows for people, in columns under a heading, or v as JSON.
func (g *globals) printList(cmd *cobra.Command, v any, head []string, rows [][]string) error {
	if g.json {
		return printJSON(cmd.OutOrStdout(), v)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}
