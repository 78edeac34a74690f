package lookup

import (
	"context"
	"errors"

	"tabard/internal/config"
	"tabard/table"
)

// hidden stands for a secret in what people are shown.
const hidden = "(hidden)"

// Answer is a table's answer as text.
type Answer struct {
	Found bool
	// Rows are the answer's columns: one row for a look-up, any number for a
	// list; none where the question was only whether the key is in the table.
	Rows [][]string
}

// Query asks a table as the services do. Without a key, it lists. Passwords and
// private keys are left out of the answer.
func (s *Service) Query(ctx context.Context, name config.TableRef, service table.Service, key string) (Answer, error) {
	t, err := s.tables.get(name)
	if err != nil {
		return Answer{}, err
	}
	if key == "" {
		return listRows(ctx, t, service)
	}
	if table.Walked(service) || service == table.String {
		ok, err := t.Check(ctx, service, key)
		return Answer{Found: ok}, err
	}
	row, err := t.Lookup(ctx, service, key)
	if errors.Is(err, table.ErrNotFound) {
		return Answer{}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	shown, err := show(service, key, row)
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
		shown := append([]string(nil), row...)
		for i := 1; i < len(shown); i += 2 {
			shown[i] = hidden
		}
		return shown, nil
	}
	return row, nil
}
