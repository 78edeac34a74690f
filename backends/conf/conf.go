// Package conf reads the configuration files of tables: a key and its value on
// each line, between them blanks, tabs or a colon, as OpenSMTPD's table-sqlite,
// table-postgres and table-ldap have them. A line that begins with # is a comment.
package conf

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// Max bounds a configuration file, in bytes.
const Max = 1 << 20

// Read reads the file at path: set is called for each line, then finish. The
// first error ends it; it names the file, and the line if it is of one.
func Read(path string, set func(key, value string) error, finish func() error) error {
	text, err := ReadFile(path, Max)
	if err != nil {
		return err
	}
	return Parse(path, string(text), set, finish)
}

// Parse reads text as Read reads a file called name. Without a name, errors begin
// with the line.
func Parse(name, text string, set func(key, value string) error, finish func() error) error {
	if err := lines(name, text, set); err != nil {
		return err
	}
	if err := finish(); err != nil {
		return at(name, 0, err)
	}
	return nil
}

func lines(name, text string, set func(key, value string) error) error {
	seen := make(map[string]int)
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, Max+1)
	n := 0
	for sc.Scan() {
		n++
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, value := split(line)
		if value == "" {
			return at(name, n, fmt.Errorf("%q has no value", key))
		}
		if first := seen[key]; first > 0 {
			return at(name, n, fmt.Errorf("%q is already on line %d", key, first))
		}
		seen[key] = n
		if err := set(key, value); err != nil {
			return at(name, n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return at(name, n+1, err)
	}
	return nil
}

// split takes a line apart. Only the first separator may be a colon: values begin
// with one, too.
func split(line string) (key, value string) {
	i := strings.IndexAny(line, " \t:")
	if i < 0 {
		return line, ""
	}
	return line[:i], strings.TrimLeft(line[i+1:], " \t")
}

// at says where an error is; line 0 means the whole.
func at(name string, line int, err error) error {
	switch {
	case line > 0 && name != "":
		return fmt.Errorf("%s:%d: %w", name, line, err)
	case line > 0:
		return fmt.Errorf("%d: %w", line, err)
	case name != "":
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// ReadFile returns the content of a file of at most max bytes; a larger one is an
// error.
func ReadFile(path string, max int) ([]byte, error) {
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
