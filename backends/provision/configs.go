package provision

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"tabard/table"
)

// ErrChanged is returned when somebody else stored a version meanwhile.
var ErrChanged = errors.New("was changed meanwhile")

// ConfigVersion is one version of a configuration. Versions are never changed or
// removed: the one with the highest number is in force.
type ConfigVersion struct {
	Name    string    `json:"name"`
	Version int64     `json:"version"`
	Created time.Time `json:"created"`
	Author  string    `json:"author,omitempty"`
	Bytes   int64     `json:"bytes"`
}

// Config returns a version's text and number; version 0 is the newest.
func (d *DB) Config(ctx context.Context, name string, version int64) (string, int64, error) {
	var text string
	var have int64
	err := d.db.QueryRowContext(ctx, d.d.text(`SELECT body, version FROM configs
WHERE {name} = ?1 AND (?2 = 0 OR version = ?2) ORDER BY version DESC LIMIT 1`), table.Fold(name), version).Scan(&text, &have)
	if errors.Is(err, sql.ErrNoRows) {
		if version > 0 {
			return "", 0, fmt.Errorf("configuration %s: version %d: %w", name, version, ErrNone)
		}
		return "", 0, fmt.Errorf("configuration %s: %w", name, ErrNone)
	}
	return text, have, err
}

// SetConfig stores a new version and returns its number. A text that is the same
// as the newest one's makes no new version. base is the version that the text was
// made from: when another one is the newest, nothing is stored and the error is
// ErrChanged; a negative base does not ask.
func (d *DB) SetConfig(ctx context.Context, name, text, author string, base int64) (version int64, err error) {
	name, err = key("configuration", name)
	if err != nil {
		return 0, err
	}
	old, newest, err := d.Config(ctx, name, 0)
	if err != nil && !errors.Is(err, ErrNone) {
		return 0, err
	}
	if base >= 0 && base != newest {
		return newest, fmt.Errorf("configuration %s: version %d is the newest, not %d: %w", name, newest, base, ErrChanged)
	}
	if newest > 0 && old == text {
		return newest, nil
	}
	// Whoever else stores this version at the same time is refused by the key.
	err = d.add(ctx, "configuration "+name, `INSERT INTO configs (name, body, version, author) VALUES (?, ?, ?, ?)`, name, text, newest+1, orNull(author))
	if errors.Is(err, ErrExists) {
		return newest, fmt.Errorf("configuration %s: %w", name, ErrChanged)
	}
	return newest + 1, err
}

// ConfigHistory returns every version of a configuration, the newest first; an
// empty name is every configuration.
func (d *DB) ConfigHistory(ctx context.Context, name string) ([]ConfigVersion, error) {
	return list(ctx, d, `SELECT name, version, created, coalesce(author, ''), octet_length(body) FROM configs
WHERE (?1 = '' OR {name} = ?1) ORDER BY name, version DESC`,
		func(scan func(...any) error) (v ConfigVersion, err error) {
			var created any
			if err = scan(&v.Name, &v.Version, &created, &v.Author, &v.Bytes); err == nil {
				v.Created, err = instant(created)
			}
			return v, err
		}, table.Fold(name))
}

// instant reads the time of a row: PostgreSQL has a type for it, SQLite text in
// UTC.
func instant(v any) (time.Time, error) {
	switch v := v.(type) {
	case time.Time:
		return v.UTC(), nil
	case string:
		return time.Parse(time.DateTime, v)
	}
	return time.Time{}, fmt.Errorf("created: %v is no time", v)
}
