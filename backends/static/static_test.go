package static

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/internal/config"
	"tabard/table"
	"tabard/table/tabletest"
)

func TestSuite(t *testing.T) {
	tabletest.Run(t, func(t *testing.T, d tabletest.Data) table.Backend {
		var c config.Table
		for _, r := range d.Records {
			if d.Mapping {
				c.Map = append(c.Map, config.KeyVal{Key: r.Key, Value: r.Text(d.Service)})
			} else {
				c.List = append(c.List, r.Key)
			}
		}
		b, err := Open(context.Background(), c, table.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
}

func TestLaterDuplicateWins(t *testing.T) {
	b := NewMap([]config.KeyVal{{Key: "Root", Value: "a"}, {Key: "x", Value: "y"}, {Key: "root", Value: "b"}}, table.Options{})
	row, err := b.Lookup(context.Background(), table.Alias, "root")
	if diff := cmp.Diff(table.Row{"b"}, row); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if rows, _ := b.Fetch(context.Background(), table.Domain); len(rows) != 2 {
		t.Errorf("fetch = %v; want each key once", rows)
	}
}

func TestFetchIsSorted(t *testing.T) {
	b := NewList([]string{"smtp://c", "smtp://A", "smtp://b"}, table.Options{})
	rows, err := b.Fetch(context.Background(), table.RelayHost)
	if diff := cmp.Diff([]table.Row{{"smtp://A"}, {"smtp://b"}, {"smtp://c"}}, rows); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestUnsupported(t *testing.T) {
	ctx := context.Background()
	list, mapping := NewList([]string{"a"}, table.Options{}), NewMap([]config.KeyVal{{Key: "a", Value: "b"}}, table.Options{})
	if _, err := list.Lookup(ctx, table.Alias, "a"); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("alias of a list: %v", err)
	}
	if _, err := mapping.Check(ctx, table.Auth, "a:b"); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("auth: %v", err)
	}
	if _, err := Open(ctx, config.Table{List: []string{"a"}, Map: []config.KeyVal{{Key: "a"}}}, table.Options{}); err == nil {
		t.Error("list and mapping at once accepted")
	}
}

// An entry that cannot be read is an error, for the subject of every question:
// an ignored one would open what it should close.
func TestBadEntries(t *testing.T) {
	ctx := context.Background()
	for s, entries := range map[table.Service][]string{table.Regex: {"fine", "(", "x"}, table.NetAddr: {"10/8", "10.0.0.0/33"}} {
		b := NewList(entries, table.Options{})
		if _, err := b.Check(ctx, s, "10.0.0.1"); err == nil || errors.Is(err, table.ErrNotFound) {
			t.Errorf("%s with a bad entry: %v", s, err)
		}
		if err := b.Validate(ctx, s); err == nil {
			t.Errorf("%s with a bad entry is valid", s)
		}
		if err := b.Validate(ctx, table.String); err != nil {
			t.Errorf("entries as strings: %v", err)
		}
	}
}

func TestPatternsKeepTheirCase(t *testing.T) {
	b := table.New("t", NewList([]string{"^ABC", "^abc", `\W$`}, table.Options{}), 0)
	for key, want := range map[string]bool{"ABCx": true, "abcx": true, "Abcx": false, "x!": true, "x": false} {
		if ok, err := b.Check(context.Background(), table.Regex, key); ok != want || err != nil {
			t.Errorf("check %q = %v, %v", key, ok, err)
		}
	}
}

func benchList(b *testing.B, s table.Service, entry func(i int) string, key string) {
	const n = 100_000
	list := make([]string, n)
	for i := range list {
		list[i] = entry(i)
	}
	t := NewList(list, table.Options{})
	ctx := context.Background()
	if ok, err := t.Check(ctx, s, key); !ok || err != nil {
		b.Fatal(ok, err)
	}
	for b.Loop() {
		if _, err := t.Check(ctx, s, key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckDomain(b *testing.B) {
	benchList(b, table.Domain, func(i int) string { return fmt.Sprintf("d%d.example", i) }, "d77777.example")
}

func BenchmarkCheckNetAddr(b *testing.B) {
	benchList(b, table.NetAddr, func(i int) string { return fmt.Sprintf("10.%d.%d.0/24", i>>8&255, i&255) }, "10.77.7.1")
}

func BenchmarkCheckMailAddr(b *testing.B) {
	benchList(b, table.MailAddr, func(i int) string { return fmt.Sprintf("u%d@example.org", i) }, "u77777+x@example.org")
}

func BenchmarkLookupAlias(b *testing.B) {
	const n = 100_000
	pairs := make([]config.KeyVal, n)
	for i := range pairs {
		pairs[i] = config.KeyVal{Key: fmt.Sprintf("u%d@example.org", i), Value: "x"}
	}
	t := NewMap(pairs, table.Options{})
	for b.Loop() {
		if _, err := t.Lookup(context.Background(), table.Alias, "u77777@example.org"); err != nil {
			b.Fatal(err)
		}
	}
}
