package postgres

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"tabard/table"
)

const (
	maxConf        = 1 << 20
	defaultSize    = 4
	defaultTimeout = 5 * time.Second
	maxTimeout     = 5 * time.Minute
)

// source says where a table's database is and what to ask it.
type source struct {
	conninfo string
	queries  *queries
	channel  string // where changes are told; empty: nowhere
	size     int    // connections for questions
	timeout  time.Duration
}

// readSource tells a URL from the path of a configuration file.
func readSource(text string) (source, error) {
	switch {
	case text == "":
		return source{}, errors.New("no URL or path given")
	case strings.HasPrefix(text, "postgres://"), strings.HasPrefix(text, "postgresql://"):
		return source{conninfo: text, size: defaultSize, timeout: defaultTimeout}.finish()
	}
	info, err := os.Stat(text)
	if err != nil {
		return source{}, err
	}
	if info.Size() > maxConf {
		return source{}, fmt.Errorf("%s: larger than %d bytes", text, maxConf)
	}
	b, err := os.ReadFile(text)
	if err != nil {
		return source{}, err
	}
	src, err := parseConf(string(b))
	if err != nil {
		return source{}, fmt.Errorf("%s:%w", text, err)
	}
	return src, nil
}

// parseConf reads the configuration file of OpenSMTPD's table-postgres: a key and
// its value on each line, between them blanks, tabs or a colon. Errors begin with
// the line.
func parseConf(text string) (source, error) {
	src := source{queries: newQueries(), size: defaultSize, timeout: defaultTimeout}
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
	src, err := src.finish()
	if err != nil {
		err = fmt.Errorf(" %w", err)
	}
	return src, err
}

func (src *source) set(key, value string) error {
	switch key {
	case "conninfo":
		src.conninfo = value
		return nil
	case "notify":
		if len(value) > 63 || strings.ContainsAny(value, " \t") {
			return fmt.Errorf("notify: %q is no name of a channel", value)
		}
		src.channel = value
		return nil
	case "pool":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 64 {
			return fmt.Errorf("pool: %q is not a number from 1 to 64", value)
		}
		src.size = n
		return nil
	case "timeout":
		d, err := time.ParseDuration(value)
		if err != nil || d < 10*time.Millisecond || d > maxTimeout {
			return fmt.Errorf("timeout: %q is not a time such as 5s, up to %s", value, maxTimeout)
		}
		src.timeout = d
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
	if err != nil || prefix != "query" && prefix != "fetch" || prefix == "fetch" && s == table.Auth {
		return fmt.Errorf("unknown key %q; expected conninfo, query_SERVICE, fetch_SERVICE, notify, pool or timeout", key)
	}
	return src.queries.set(s, key, value)
}

// finish fills in our own schema where no query is given.
func (src source) finish() (source, error) {
	if src.conninfo == "" {
		return source{}, errors.New("conninfo is missing")
	}
	if src.queries != nil && len(src.queries.lookup)+len(src.queries.fetch) > 0 {
		return src, nil
	}
	var err error
	if src.queries, err = ownSchema(); err != nil {
		return source{}, err
	}
	if src.channel == "" {
		src.channel = ownChannel
	}
	return src, nil
}

// Database returns the URL or connection string behind a table's source, which may
// hold a password. own tells whether it is asked by Tabard's own schema.
func Database(source string) (conninfo string, own bool, err error) {
	src, err := readSource(source)
	if err != nil {
		return "", false, err
	}
	return src.conninfo, src.queries.builtin, nil
}
