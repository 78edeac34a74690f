package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"

	"tabard/backends"
	"tabard/internal/config"
	"tabard/table"
)

// confSource is where the configuration comes from: a file, or the service
// config of a database.
type confSource struct {
	path    string
	name    string // in a database; empty: the host's name, else defaultName
	macros  []string
	dialect string // when the text names none
}

// defaultName is the configuration for hosts that have none of their own.
const defaultName = "default"

// loaded is a configuration with the hash of its text.
type loaded struct {
	cfg  *config.Config
	hash string
}

// backend returns the kind of the database and how to reach it; an empty kind
// for a file.
func (s confSource) backend() (kind, source string) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if strings.HasPrefix(s.path, scheme) {
			return "postgres", s.path
		}
	}
	for _, kind := range []string{"postgres", "sqlite"} {
		if source, ok := strings.CutPrefix(s.path, kind+":"); ok {
			return kind, source
		}
	}
	return "", ""
}

func (s confSource) database() bool {
	kind, _ := s.backend()
	return kind != ""
}

// String names the source without passwords.
func (s confSource) String() string {
	if !strings.Contains(s.path, "://") {
		return s.path
	}
	u, err := url.Parse(s.path)
	if err != nil {
		return "postgres://..."
	}
	if _, has := u.User.Password(); has {
		u.User = url.User(u.User.Username())
	}
	u.RawQuery = "" // may hold one too
	return u.String()
}

// load reads the configuration now.
func (s confSource) load(ctx context.Context) (loaded, error) {
	text, err := s.text(ctx)
	if err != nil {
		return loaded{}, err
	}
	return s.parse(text)
}

// confText is the text of a configuration, and its name in the database.
type confText struct{ Name, Text string }

// text reads the configuration's text now.
func (s confSource) text(ctx context.Context) (confText, error) {
	if !s.database() {
		text, err := config.ReadFile(s.path)
		if err != nil {
			return confText{}, exitf(exConfig, "no configuration: %w (name one with -c, or try `tabard quickstart`)", err)
		}
		return confText{Text: string(text)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	t, err := s.open(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return confText{}, withCode(exConfig, err)
	}
	defer func() { _ = t.Backend().Close() }()
	text, err := s.read(ctx, t)
	if errors.Is(err, table.ErrNotFound) {
		return confText{}, withCode(exConfig, err)
	}
	return text, withCode(exTempFail, err)
}

// parse reads a text. What one from a database includes must have an absolute
// path, for it stands in no directory.
func (s confSource) parse(text confText) (loaded, error) {
	opts, err := s.options()
	if err != nil {
		return loaded{}, err
	}
	name := s.path
	if s.database() {
		name = "config " + text.Name
	}
	sum := sha256.New()
	_, _ = sum.Write([]byte(text.Text))
	opts.ReadFile = func(path string) ([]byte, error) {
		if s.database() && !filepath.IsAbs(path) {
			return nil, errors.New("a configuration in a database can include absolute paths only")
		}
		text, err := config.ReadFile(path)
		_, _ = sum.Write(text)
		return text, err
	}
	cfg, err := config.Parse(name, []byte(text.Text), opts)
	return loaded{cfg, hex.EncodeToString(sum.Sum(nil)[:6])}, withCode(exConfig, err)
}

// options are those of -D and --dialect.
func (s confSource) options() (config.Options, error) {
	opts := config.Options{Macros: map[string]string{}, Dialect: config.Dialect(s.dialect)}
	switch opts.Dialect {
	case "", config.DialectTabard, config.DialectOpenSMTPD:
	default:
		return opts, exitf(exUsage, "--dialect %q: want %s or %s", s.dialect, config.DialectTabard, config.DialectOpenSMTPD)
	}
	for _, m := range s.macros {
		name, value, ok := strings.Cut(m, "=")
		if !ok || name == "" {
			return opts, exitf(exUsage, "-D %q: want name=value", m)
		}
		opts.Macros[name] = value
	}
	return opts, nil
}

// absolute makes the source mean the same in every directory.
func (s confSource) absolute() (confSource, error) {
	kind, source := s.backend()
	if kind == "" || strings.Contains(source, "://") {
		return s, nil
	}
	path, err := filepath.Abs(source)
	s.path = kind + ":" + path
	return s, err
}

// open opens the database; one that is unreachable is no error.
func (s confSource) open(ctx context.Context, log *slog.Logger) (*table.Table, error) {
	s, err := s.absolute()
	if err != nil {
		return nil, err
	}
	b, err := backends.Open(ctx, s.declared(), table.Options{Log: log})
	if err != nil {
		return nil, err
	}
	return table.New("config", b, 0), nil
}

// declared is the database as a table.
func (s confSource) declared() config.Table {
	kind, source := s.backend()
	return config.Table{Pos: config.Pos{File: "-c", Line: 1, Col: 1}, Name: "config", Kind: kind, Source: source}
}

// names are those that the configuration may have, in order of preference.
func (s confSource) names() []string {
	if s.name != "" {
		return []string{s.name}
	}
	host := serverName(&config.Config{}, s.path)
	return []string{host, defaultName}
}

// read asks for the text. That there is none wraps table.ErrNotFound.
func (s confSource) read(ctx context.Context, t *table.Table) (confText, error) {
	names := s.names()
	var missing error
	for _, name := range names {
		text, err := t.ConfigText(ctx, name)
		if err == nil {
			return confText{name, text}, nil
		}
		if !errors.Is(err, table.ErrNotFound) {
			return confText{}, fmt.Errorf("configuration: %w", err)
		}
		missing = cmp.Or(missing, err)
	}
	return confText{}, fmt.Errorf("no configuration called %s in %s: %w", strings.Join(names, " or "), s, table.ErrNotFound)
}
