package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tabard/internal/config"
)

// command is the program of a table.
type command struct {
	path string
	argv []string // argv[0] included
}

// commandOf finds the program of a declared table: `proc:/path args`, or TYPE:/path,
// which runs table-TYPE with the path as its argument as OpenSMTPD does.
func commandOf(c config.Table) (command, error) {
	if c.Kind == "proc" {
		words, err := split(c.Source)
		if err != nil {
			return command{}, err
		}
		if len(words) == 0 || !filepath.IsAbs(words[0]) {
			return command{}, fmt.Errorf("%q does not begin with the absolute path of a program", c.Source)
		}
		return command{words[0], words}, nil
	}
	path, err := find("table-" + c.Kind)
	if err != nil {
		return command{}, err
	}
	argv := []string{c.Name}
	if c.Source != "" {
		argv = append(argv, c.Source)
	}
	return command{path, argv}, nil
}

// directories are where programs of a type are sought: ours, then OpenSMTPD's of
// Debian, of its portable release and of OpenBSD.
func directories() []string {
	dirs := []string{"/usr/local/libexec/tabard", "/usr/libexec/tabard", "/usr/lib/tabard"}
	multiarch, _ := filepath.Glob("/usr/lib/*-linux-gnu*/opensmtpd") // the pattern is good
	dirs = append(dirs, multiarch...)
	return append(dirs, "/usr/local/libexec/opensmtpd", "/usr/libexec/opensmtpd", "/usr/lib/opensmtpd", "/usr/local/libexec/smtpd")
}

func find(name string) (string, error) {
	for _, dir := range directories() {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no program %s in any of %s", name, strings.Join(directories(), ", "))
}

// split takes a command line apart at blanks. Quotes, single or double, keep
// blanks together; a backslash keeps what follows it. There is no shell.
func split(line string) ([]string, error) {
	var words []string
	var b strings.Builder
	started := false
	var quote rune
	escaped := false
	for _, c := range line {
		switch {
		case escaped:
			b.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, started = true, true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				b.WriteRune(c)
			}
		case c == '\'' || c == '"':
			quote, started = c, true
		case c == ' ' || c == '\t':
			if started {
				words = append(words, b.String())
				b.Reset()
				started = false
			}
		default:
			b.WriteRune(c)
			started = true
		}
	}
	switch {
	case quote != 0:
		return nil, fmt.Errorf("quote %c is not closed", quote)
	case escaped:
		return nil, errors.New("backslash at the end")
	case started:
		words = append(words, b.String())
	}
	return words, nil
}
