package postgres

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"tabard/table"
)

// Every value comes in PostgreSQL's text format. Few types need a hand: booleans
// read as in other databases, bytes hold text, and an array of texts stands for
// several values.

// textRow converts the values of a row.
func textRow(fields []pgconn.FieldDescription, values [][]byte) (table.Row, error) {
	row := make(table.Row, 0, len(values))
	for i, v := range values {
		if v == nil {
			row = append(row, "")
			continue
		}
		texts, err := text(fields[i].DataTypeOID, string(v))
		for _, s := range texts {
			if !utf8.ValidString(s) {
				err = errors.New("is not UTF-8 text")
			} else if strings.ContainsRune(s, 0) {
				err = errors.New("has a NUL character")
			}
		}
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", fields[i].Name, err)
		}
		row = append(row, texts...)
	}
	return row, nil
}

// text converts one value that is not NULL.
func text(oid uint32, v string) ([]string, error) {
	switch oid {
	case pgtype.BoolOID:
		if v == "t" {
			return []string{"1"}, nil
		}
		return []string{"0"}, nil
	case pgtype.ByteaOID:
		s, err := unescape(v)
		return []string{s}, err
	case pgtype.TextArrayOID, pgtype.VarcharArrayOID, pgtype.BPCharArrayOID, pgtype.NameArrayOID:
		return splitArray(v)
	}
	return []string{v}, nil
}

// unescape reads bytes in either of the formats of bytea_output.
func unescape(v string) (string, error) {
	if digits, ok := strings.CutPrefix(v, `\x`); ok {
		b, err := hex.DecodeString(digits)
		return string(b), err
	}
	var b strings.Builder
	for len(v) > 0 {
		switch {
		case v[0] != '\\':
			b.WriteByte(v[0])
			v = v[1:]
		case strings.HasPrefix(v, `\\`):
			b.WriteByte('\\')
			v = v[2:]
		default:
			var c byte
			if len(v) < 4 {
				return "", errors.New("has a broken escape")
			}
			for _, d := range []byte(v[1:4]) {
				if d < '0' || d > '7' {
					return "", errors.New("has a broken escape")
				}
				c = c<<3 | (d - '0')
			}
			b.WriteByte(c)
			v = v[4:]
		}
	}
	return b.String(), nil
}

// splitArray takes an array of texts apart, as in {a,"b, c",NULL}. Elements that
// are NULL are left out, and bounds ("[0:1]=") do not matter.
func splitArray(v string) ([]string, error) {
	if _, body, ok := strings.Cut(v, "="); ok && strings.HasPrefix(v, "[") {
		v = body
	}
	if len(v) < 2 || v[0] != '{' || v[len(v)-1] != '}' {
		return nil, errors.New("is not an array")
	}
	v = v[1 : len(v)-1]
	if v == "" {
		return nil, nil
	}
	var all []string
	for {
		s, rest, err := element(v)
		if err != nil {
			return nil, err
		}
		all = append(all, s...)
		if rest == "" {
			return slices.Clip(all), nil
		}
		if rest[0] != ',' {
			return nil, errors.New("is not an array")
		}
		v = rest[1:]
	}
}

// element reads the first element of an array's inside: none when it is NULL.
func element(v string) (value []string, rest string, err error) {
	if !strings.HasPrefix(v, `"`) {
		end := strings.IndexAny(v, `,"{}\`)
		if end < 0 {
			end = len(v)
		} else if v[end] != ',' {
			return nil, "", errors.New("is not a list of texts")
		}
		if v[:end] == "NULL" {
			return nil, v[end:], nil
		}
		return []string{v[:end]}, v[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '"':
			return []string{b.String()}, v[i+1:], nil
		case '\\':
			if i++; i == len(v) {
				return nil, "", errors.New("is not an array")
			}
		}
		b.WriteByte(v[i])
	}
	return nil, "", errors.New("is not an array")
}
