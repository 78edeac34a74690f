package provision

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
)

// User is a row of users. The hash is left out of lists.
type User struct {
	Name    string `json:"name"`
	UID     *int64 `json:"uid"` // nil: the server's own mail user
	GID     *int64 `json:"gid"`
	Home    string `json:"home,omitempty"`
	Enabled bool   `json:"enabled"`
	Login   bool   `json:"login"` // has a password
}

// AddUser adds an enabled user. An empty hash is a user who receives mail and
// cannot log in; nil ids are the server's own mail user; an empty home is none.
func (d *DB) AddUser(ctx context.Context, name, hash string, uid, gid *int64, home string) error {
	name, err := key("user", name)
	if err != nil {
		return err
	}
	if err := checkHash(hash); err != nil {
		return err
	}
	if err := checkHome(home); err != nil {
		return err
	}
	return d.add(ctx, "user "+name, `INSERT INTO users (name, password, uid, gid, home) VALUES (?, ?, ?, ?, ?)`,
		name, orNull(hash), uid, gid, orNull(home))
}

// SetPassword replaces the hash of a user; an empty one takes the login away.
func (d *DB) SetPassword(ctx context.Context, name, hash string) error {
	name, err := key("user", name)
	if err != nil {
		return err
	}
	if err := checkHash(hash); err != nil {
		return err
	}
	return d.change(ctx, "user "+name, `UPDATE users SET password = ? WHERE {name} = ?`, orNull(hash), name)
}

// EnableUser lets a user log in and receive mail, or not.
func (d *DB) EnableUser(ctx context.Context, name string, enabled bool) error {
	name, err := key("user", name)
	if err != nil {
		return err
	}
	return d.change(ctx, "user "+name, `UPDATE users SET enabled = ? WHERE {name} = ?`, enabled, name)
}

// RemoveUser removes a user, and with it the user's senders and client
// certificates.
func (d *DB) RemoveUser(ctx context.Context, name string) error {
	name, err := key("user", name)
	if err != nil {
		return err
	}
	return d.inTx(ctx, func(tx tx) error {
		r, err := tx.exec(ctx, `DELETE FROM users WHERE {name} = ?`, name)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("user %s: %w", name, ErrNone))
		}
		// A certificate that stayed would log in again, as one of a user without a row.
		for _, also := range []string{`DELETE FROM senders WHERE {user} = ?`, `DELETE FROM client_identities WHERE {user} = ?`} {
			if _, err := tx.exec(ctx, also, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// ListUsers returns every user, by name.
func (d *DB) ListUsers(ctx context.Context) ([]User, error) {
	return list(ctx, d, `SELECT name, uid, gid, coalesce(home, ''), enabled, coalesce(password, '') <> '' FROM users ORDER BY name`,
		func(scan func(...any) error) (u User, err error) {
			err = scan(&u.Name, &u.UID, &u.GID, &u.Home, &u.Enabled, &u.Login)
			return u, err
		})
}

// inTx runs f in one transaction.
func (d *DB) inTx(ctx context.Context, f func(tx) error) error {
	begun, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx{begun, d.d}); err != nil {
		return errors.Join(err, begun.Rollback())
	}
	return begun.Commit()
}

// checkHash refuses what is certainly not one: text that would break a line, or
// a clear-text password.
func checkHash(hash string) error {
	if strings.ContainsAny(hash, "\x00\r\n") {
		return errors.New("password hash: NUL, CR or LF in it")
	}
	if hash != "" && !strings.ContainsAny(hash, "${") {
		return errors.New("password hash: neither $id$hash nor {SCHEME}hash")
	}
	return nil
}

func checkHome(home string) error {
	if home != "" && !path.IsAbs(home) {
		return fmt.Errorf("home %q is not an absolute path", home)
	}
	return nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
