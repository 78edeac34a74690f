package sqlite

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tabard/table"
)

// maxConf bounds a configuration file.
const maxConf = 1 << 20

// source says where a table's database is and what to ask it.
type source struct {
	path    string
	queries *queries
}

// readSource tells a database from a configuration file: by the suffix .conf,
// .db, .sqlite or .sqlite3, else by what the file begins with.
func readSource(path string) (source, error) {
	if path == "" {
		return source{}, errors.New("no path given")
	}
	switch filepath.Ext(path) {
	case ".conf":
		return readConf(path)
	case ".db", ".sqlite", ".sqlite3":
		return ownSource(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return ownSource(path)
	}
	defer f.Close()
	head := make([]byte, 16)
	n, _ := f.Read(head) // a short or unreadable file is no configuration
	if n == 0 || bytes.HasPrefix(head[:n], []byte("SQLite format 3\x00")) {
		return ownSource(path)
	}
	return readConf(path)
}

func ownSource(path string) (source, error) {
	q, err := ownSchema()
	return source{path: path, queries: q}, err
}

// readConf reads the configuration file of OpenSMTPD's table-sqlite: a key and
// its value on each line, between them blanks, tabs or a colon. Without any
// query, Tabard's own schema is asked.
func readConf(path string) (source, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return source{}, err
	}
	if len(b) > maxConf {
		return source{}, fmt.Errorf("%s: larger than %d bytes", path, maxConf)
	}
	src, err := parseConf(string(b))
	if err != nil {
		return source{}, fmt.Errorf("%s:%w", path, err)
	}
	return src, nil
}

// parseConf reads the text of a configuration file. Errors begin with the line.
func parseConf(text string) (source, error) {
	src := source{queries: newQueries()}
	seen := make(map[string]int)
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, maxConf+1)
	n := 0
	for sc.Scan() {
		n++
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, value := line, ""
		if i := strings.IndexAny(line, " \t:"); i >= 0 {
			key, value = line[:i], strings.TrimLeft(line[i+1:], " \t")
		}
		if value == "" {
			return source{}, fmt.Errorf("%d: %q has no value", n, key)
		}
		if first := seen[key]; first > 0 {
			return source{}, fmt.Errorf("%d: %q is already on line %d", n, key, first)
		}
		seen[key] = n
		if err := src.set(key, value); err != nil {
			return source{}, fmt.Errorf("%d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return source{}, fmt.Errorf("%d: %w", n+1, err)
	}
	return src.finish()
}

func (src *source) set(key, value string) error {
	switch key {
	case "dbpath":
		src.path = value
		return nil
	case "fetch_source_expire", "fetch_source_refresh":
		// How long OpenSMTPD keeps a fetched list. Ours is asked each time.
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return fmt.Errorf("%s: %q is not a number", key, value)
		}
		return nil
	}
	prefix, service, _ := strings.Cut(key, "_")
	s, err := table.ParseService(service)
	if err != nil || prefix != "query" && prefix != "fetch" || s == table.Auth {
		return fmt.Errorf("unknown key %q; expected dbpath, query_SERVICE or fetch_SERVICE", key)
	}
	return src.queries.set(s, key, value)
}

func (src source) finish() (source, error) {
	if src.path == "" {
		return source{}, errors.New(" dbpath is missing")
	}
	if len(src.queries.lookup)+len(src.queries.fetch) > 0 {
		return src, nil
	}
	return ownSource(src.path)
}

// Database returns the path of the database behind a table's source. own tells
// whether it is asked by Tabard's own schema.
func Database(source string) (path string, own bool, err error) {
	src, err := readSource(source)
	if err != nil {
		return "", false, err
	}
	return src.path, src.queries.builtin, nil
}
