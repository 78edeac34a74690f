package ldap

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds of files that a configuration names.
const (
	maxConf = 1 << 20
	maxFile = 1 << 20
)

// line is one key and its value in a configuration file.
type line struct {
	n          int
	key, value string
}

// readConf reads a configuration file in the form of OpenSMTPD's table-ldap for
// the table called name.
func readConf(path, name string) (*settings, error) {
	b, err := readFile(path, maxConf)
	if err != nil {
		return nil, err
	}
	set, err := parseConf(string(b), name)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return set, nil
}

func readFile(path string, max int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err == nil && len(b) > max {
		err = fmt.Errorf("%s: larger than %d bytes", path, max)
	}
	return b, err
}

// parseConf reads the text of a configuration file. Errors begin with the line.
func parseConf(text, name string) (*settings, error) {
	lines, err := splitConf(text)
	if err != nil {
		return nil, err
	}
	set := newSettings(name)
	for _, l := range lines {
		if err := set.set(l.key, l.value); err != nil {
			return nil, fmt.Errorf("%d: %s: %w", l.n, l.key, err)
		}
	}
	if err := set.finish(); err != nil {
		return nil, fmt.Errorf(" %w", err)
	}
	return set, nil
}

// splitConf takes a configuration file apart: a key and its value on each line,
// between them blanks, tabs or a colon.
func splitConf(text string) ([]line, error) {
	var lines []line
	seen := make(map[string]int)
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, maxConf+1)
	n := 0
	for sc.Scan() {
		n++
		s := strings.TrimSpace(sc.Text())
		if s == "" || s[0] == '#' {
			continue
		}
		key, value := s, ""
		if i := strings.IndexAny(s, " \t:"); i >= 0 {
			key, value = s[:i], strings.TrimLeft(s[i+1:], " \t")
		}
		if value == "" {
			return nil, fmt.Errorf("%d: %q has no value", n, key)
		}
		if first := seen[key]; first > 0 {
			return nil, fmt.Errorf("%d: %q is already on line %d", n, key, first)
		}
		seen[key] = n
		lines = append(lines, line{n, key, value})
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", n+1, err)
	}
	return lines, nil
}
