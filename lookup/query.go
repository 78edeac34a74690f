package lookup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tabard/internal/config"
	"tabard/table"
	"tabard/table/cache"
)

// hidden stands for a secret in what people are shown.
const hidden = "(hidden)"

// Where an answer came from.
const (
	FromBackend = "backend" // the table's source was asked
	FromCache   = "cache"   // known, and true as far as anybody can tell
	FromStale   = "stale"   // known from before the source went down
)

// QueryRequest is one question of an administrator.
type QueryRequest struct {
	Table    config.TableRef
	Service  table.Service
	Key      string // empty: what the table lists
	Password string // for service auth, and credentials if not empty: is it right
	Fresh    bool   // put the question to the source, whatever is known
}

// Answer is a table's answer as text.
type Answer struct {
	Found bool `json:"found"`
	// Rows are the answer's columns: one row for a look-up, any number for a
	// list; none where the question was only whether the key is in the table.
	Rows [][]string    `json:"rows,omitempty"`
	Cut  bool          `json:"cut,omitempty"` // there are more rows
	From string        `json:"from"`          // FromBackend, FromCache or FromStale
	Took time.Duration `json:"took"`
}

// Query asks a table as the services do. Without a key, it lists. Passwords and
// private keys are left out of the answer.
func (s *Service) Query(ctx context.Context, r QueryRequest) (Answer, error) {
	t, err := s.tables.get(r.Table)
	if err != nil {
		return Answer{}, err
	}
	if r.Fresh {
		ctx = cache.Fresh(ctx)
	} else {
		ctx = cache.WithOrigin(ctx)
	}
	began := time.Now()
	a, err := s.query(ctx, t, r)
	a.Took, a.From = time.Since(began), FromBackend
	switch origin := cache.OriginOf(ctx); {
	case origin.Stale():
		a.From = FromStale
	case origin.Cached():
		a.From = FromCache
	}
	return a, err
}

func (s *Service) query(ctx context.Context, t *table.Table, r QueryRequest) (Answer, error) {
	switch {
	case r.Service == table.Auth || r.Service == table.Credentials && r.Password != "":
		reply, err := s.authenticate(ctx, t, r.Key, r.Password)
		return Answer{Found: reply.OK}, err
	case r.Key == "":
		return listRows(ctx, t, r.Service)
	case table.Walked(r.Service) || r.Service == table.String:
		ok, err := t.Check(ctx, r.Service, r.Key)
		return Answer{Found: ok}, err
	}
	row, err := t.Lookup(ctx, r.Service, r.Key)
	if errors.Is(err, table.ErrNotFound) {
		return Answer{}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	if err := table.CheckRow(r.Service, r.Key, row); err != nil {
		return Answer{}, fmt.Errorf("table %s: %s %.100q: %w", t.Name(), r.Service, r.Key, err)
	}
	shown, err := show(r.Service, r.Key, row)
	return Answer{Found: true, Rows: [][]string{shown}}, err
}

func listRows(ctx context.Context, t *table.Table, service table.Service) (Answer, error) {
	rows, err := t.Fetch(ctx, service)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Found: len(rows) > 0}
	for _, row := range rows {
		shown, err := show(service, "", row)
		if err != nil {
			return a, err
		}
		a.Rows = append(a.Rows, shown)
	}
	return a, nil
}

// show leaves secrets out.
func show(service table.Service, key string, row table.Row) ([]string, error) {
	switch service {
	case table.Credentials:
		login, err := table.ParseCredentials(key, row)
		return []string{login.User, hidden}, err
	case table.Cert:
		shown := make([]string, 0, len(row))
		for _, col := range row {
			text := table.PublicPEM(col)
			if text == "" {
				text = hidden
			}
			shown = append(shown, text)
		}
		return shown, nil
	case table.DKIM:
		return table.HideDKIM(row, hidden), nil
	}
	return row, nil
}
