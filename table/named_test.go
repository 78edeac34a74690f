package table

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// fake answers by functions, and remembers the last key.
type fake struct {
	lookup func(ctx context.Context, key string) (Row, error)
	key    string
}

func (f *fake) Lookup(ctx context.Context, _ Service, key string) (Row, error) {
	f.key = key
	return f.lookup(ctx, key)
}

func (f *fake) Check(ctx context.Context, s Service, key string) (bool, error) {
	_, err := f.Lookup(ctx, s, key)
	return err == nil, err
}

func (f *fake) Fetch(ctx context.Context, s Service) ([]Row, error) {
	row, err := f.Lookup(ctx, s, "")
	return []Row{row}, err
}

func (f *fake) Close() error { return nil }

func answering(row ...string) *fake {
	return &fake{lookup: func(context.Context, string) (Row, error) { return row, nil }}
}

func failing(err error) *fake {
	return &fake{lookup: func(context.Context, string) (Row, error) { return nil, err }}
}

func TestTableSaysWhatWasAsked(t *testing.T) {
	ctx, broken := context.Background(), errors.New("broken")
	tab := New("mail", failing(broken), 0)
	_, err := tab.Lookup(ctx, Alias, "Root")
	if !errors.Is(err, broken) || err.Error() != `table mail: alias "Root": broken` {
		t.Errorf("lookup: %v", err)
	}
	if _, err = tab.Check(ctx, Auth, "user:SeCret"); err == nil || strings.Contains(err.Error(), "SeCret") {
		t.Errorf("an error tells the password: %v", err)
	}
	if _, err = tab.Lookup(ctx, Alias, strings.Repeat("x", 1000)); len(err.Error()) > 200 {
		t.Errorf("error is %d bytes long", len(err.Error()))
	}
	if _, err = New("mail", failing(ErrNotFound), 0).Lookup(ctx, Alias, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("not found: %v", err)
	}
	if ok, err := New("mail", failing(ErrNotFound), 0).Check(ctx, Domain, "x"); ok || err != nil {
		t.Errorf("check of what is not found = %v, %v", ok, err)
	}
	// What does not parse is an error, never "not found".
	_, err = New("mail", answering("x:y:z"), 0).UserInfo(ctx, "alice")
	if err == nil || errors.Is(err, ErrNotFound) || !strings.HasPrefix(err.Error(), `table mail: userinfo "alice": `) {
		t.Errorf("bad row: %v", err)
	}
}

func TestTableFoldsKeys(t *testing.T) {
	f := answering("x")
	tab := New("t", f, 0)
	for s, want := range map[Service]string{Alias: "abc", Auth: "AbC", Regex: "AbC", Cert: "abc"} {
		if _, err := tab.Lookup(context.Background(), s, "AbC"); err != nil || f.key != want {
			t.Errorf("%s: backend was asked %q, %v", s, f.key, err)
		}
	}
}

func TestTableHasADeadline(t *testing.T) {
	f := &fake{lookup: func(ctx context.Context, _ string) (Row, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	if _, err := New("t", f, time.Millisecond).Lookup(context.Background(), Alias, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lookup of a table that hangs: %v", err)
	}
}

func TestFirst(t *testing.T) {
	ctx, broken := context.Background(), errors.New("broken")
	f := &fake{lookup: func(_ context.Context, key string) (Row, error) {
		switch key {
		case "b":
			return Row{"found"}, nil
		case "bad":
			return nil, broken
		}
		return nil, ErrNotFound
	}}
	tab := New("t", f, 0)
	if key, row, err := tab.First(ctx, Alias, []string{"a", "b", "bad"}); key != "b" || len(row) != 1 || err != nil {
		t.Errorf("First = %q, %q, %v", key, row, err)
	}
	if _, _, err := tab.First(ctx, Alias, []string{"a", "bad", "b"}); !errors.Is(err, broken) {
		t.Errorf("an error before the answer: %v", err)
	}
	if _, _, err := tab.First(ctx, Alias, []string{"a", "c"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no answer: %v", err)
	}
}

func TestServiceNames(t *testing.T) {
	for _, s := range Services() {
		if got, err := ParseService(s.String()); got != s || err != nil {
			t.Errorf("ParseService(%q) = %v, %v", s.String(), got, err)
		}
	}
	if _, err := ParseService(""); err == nil {
		t.Error("the empty service name is known")
	}
}
