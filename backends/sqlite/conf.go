package sqlite

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"

	"tabard/backends/conf"
	"tabard/backends/sqltable"
)

// dialect is SQLite's.
func dialect() sqltable.Dialect {
	return sqltable.Dialect{Quotes: "`[", Mark: "?", Find: "instr", AnyBytes: true}
}

// source says where a table's database is and what to ask it.
type source struct {
	path    string
	queries *sqltable.Queries
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
	q, err := sqltable.OwnSchema(dialect())
	return source{path: path, queries: q}, err
}

// readConf reads the configuration file of OpenSMTPD's table-sqlite. Without any
// query, Tabard's own schema is asked.
func readConf(path string) (source, error) {
	src := source{queries: sqltable.NewQueries(dialect())}
	err := conf.Read(path, src.set, src.finish)
	return src, err
}

func (src *source) set(key, value string) error {
	if key == "dbpath" {
		src.path = value
		return nil
	}
	return src.queries.Set(key, value, "dbpath")
}

func (src *source) finish() (err error) {
	switch {
	case src.path == "":
		return errors.New("dbpath is missing")
	case src.queries.Empty():
		*src, err = ownSource(src.path)
	}
	return err
}

// Database returns the path of the database behind a table's source. own tells
// whether it is asked by Tabard's own schema.
func Database(source string) (path string, own bool, err error) {
	src, err := readSource(source)
	if err != nil {
		return "", false, err
	}
	return src.path, src.queries.Own, nil
}
