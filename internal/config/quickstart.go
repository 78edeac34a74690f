package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed quickstart.conf
var quickstartText string

// QuickstartParams fill in the embedded configuration.
type QuickstartParams struct {
	Dir        string // absolute path of the directory that holds everything
	Hostname   string // name of the server, in banner and certificate
	SMTP       string // host:port with STARTTLS, for mail from other servers
	SMTPS      string // host:port with TLS from the first byte, for users
	Submission string // host:port with mandatory STARTTLS, for users
}

// Quickstart returns the text of the embedded configuration: a whole server on
// one SQLite database. It is commented for people who see the language for the
// first time.
func Quickstart(p QuickstartParams) ([]byte, error) {
	if !filepath.IsAbs(p.Dir) {
		return nil, fmt.Errorf("quickstart: directory %q is not an absolute path", p.Dir)
	}
	p.Dir = strings.TrimSuffix(filepath.Clean(p.Dir), "/")
	if _, err := checkHostName(p.Hostname); err != nil {
		return nil, fmt.Errorf("quickstart: %w", err)
	}
	t, err := template.New("quickstart.conf").Funcs(template.FuncMap{
		"quote": quoteAll, "listen": listenOn, "literal": escapeFormat,
	}).Parse(quickstartText)
	if err != nil {
		return nil, fmt.Errorf("quickstart: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, p); err != nil {
		return nil, fmt.Errorf("quickstart: %w", err)
	}
	return out.Bytes(), nil
}

// Quote returns s as a string of the language. Line ends, NUL and a backslash at
// the end are not expressible in it.
func Quote(s string) (string, error) {
	if strings.ContainsAny(s, "\n\r\x00") || strings.HasSuffix(s, `\`) {
		return "", fmt.Errorf("%q cannot be written as a string of the configuration", s)
	}
	if len(s) > maxToken {
		return "", errors.New("string is too long for the configuration")
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		// A backslash is taken literally unless one of these follows it.
		afterBackslash := i > 0 && s[i-1] == '\\' && (s[i] == ' ' || s[i] == '\t')
		if s[i] == '"' || afterBackslash {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String(), nil
}

func quoteAll(parts ...string) (string, error) { return Quote(strings.Join(parts, "")) }

// escapeFormat protects a text within a template of format specifiers.
func escapeFormat(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// listenOn writes host:port as `listen on` wants it.
func listenOn(hostPort string) (string, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil || host == "" {
		return "", fmt.Errorf("%q: expected host:port", hostPort)
	}
	if host, err = Quote(host); err != nil {
		return "", err
	}
	if port, err = checkPort(port); err != nil {
		return "", err
	}
	return "listen on " + host + " port " + port, nil
}
