package postgres

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tabard/backends/conf"
	"tabard/backends/sqltable"
)

const (
	defaultSize    = 4
	defaultTimeout = 5 * time.Second
	maxTimeout     = 5 * time.Minute
)

// source says where a table's database is and what to ask it.
type source struct {
	conninfo string
	queries  *sqltable.Queries
	channel  string // where changes are told; empty: nowhere
	size     int    // connections for questions
	timeout  time.Duration
}

// dialect is PostgreSQL's.
func dialect() sqltable.Dialect {
	return sqltable.Dialect{Escapes: true, Dollars: true, Nested: true, Numbered: true, Mark: "$", Fold: "lower", Find: "strpos"}
}

// readSource tells a URL from the path of a configuration file in the form of
// OpenSMTPD's table-postgres.
func readSource(text string) (source, error) {
	switch {
	case text == "":
		return source{}, errors.New("no URL or path given")
	case strings.HasPrefix(text, "postgres://"), strings.HasPrefix(text, "postgresql://"):
		src := source{conninfo: text, size: defaultSize, timeout: defaultTimeout}
		return src, src.finish()
	}
	src := source{queries: sqltable.NewQueries(dialect()), size: defaultSize, timeout: defaultTimeout}
	err := conf.Read(text, src.set, src.finish)
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
	}
	return src.queries.Set(key, value, "conninfo, notify, pool, timeout")
}

// finish fills in our own schema where no query is given.
func (src *source) finish() (err error) {
	if src.conninfo == "" {
		return errors.New("conninfo is missing")
	}
	if src.queries != nil && !src.queries.Empty() {
		return nil
	}
	if src.channel == "" {
		src.channel = ownChannel
	}
	src.queries, err = sqltable.OwnSchema(dialect())
	return err
}

// Database returns the URL or connection string behind a table's source, which may
// hold a password. own tells whether it is asked by Tabard's own schema.
func Database(source string) (conninfo string, own bool, err error) {
	src, err := readSource(source)
	if err != nil {
		return "", false, err
	}
	return src.conninfo, src.queries.Own, nil
}
