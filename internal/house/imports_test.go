// Package house holds the house rules as tests: which package may import which,
// and how files are written. Each rule has a small example that breaks it.
package house

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is the path of our module.
const module = "tabard"

// layer places packages in the order of DESIGN section 3: a package imports
// from lower layers, and within its own only what also says.
type layer struct {
	prefix string   // import path below the module; packages below it belong too
	rank   int      // higher imports lower
	also   []string // packages of the same rank that it may import
}

// layers lists the more special prefix first.
func layers() []layer {
	return []layer{
		{"cmd", 50, nil},
		{"bench", 50, []string{"bench"}},
		{"internal/posttest", 45, nil}, // above all that serves mail
		{"internal/osmtpdtest", 45, nil},
		{"internal/house", 50, nil},
		{"internal/metrics", 42, nil}, // tells of all that serves mail
		{"queue/sqlite", 41, nil},
		{"smtpd", 40, []string{"lookup", "queue"}},
		{"mta", 40, []string{"lookup", "queue"}},
		{"queue", 40, []string{"lookup"}},
		{"lookup", 40, nil},
		{"internal/deliver", 40, []string{"lookup", "queue"}},
		{"internal/control", 40, []string{"internal/privsep"}},
		{"internal/privsep", 40, []string{"internal/privsep"}},
		{"backends/conf", 25, nil},
		{"backends/sqltable", 25, nil},
		{"backends", 30, []string{"backends"}},
		{"table", 20, []string{"table", "internal"}},
		{"migrations", 20, []string{"migrations", "internal"}},
		{"internal", 20, []string{"internal"}},
	}
}

// forbidden lists what must not be reachable from a package, by any chain.
func forbidden() map[string][]string {
	network := []string{
		"tabard/backends", "tabard/queue/sqlite", "tabard/migrations", "database/sql", "modernc.org/sqlite",
		"github.com/jackc/pgx", "github.com/go-ldap/ldap", "github.com/pressly/goose",
	}
	return map[string][]string{
		"tabard/smtpd":            network,
		"tabard/mta":              network,
		"tabard/lookup":           network, // what it asks is handed to it
		"tabard/internal/deliver": network,
		"tabard/queue":            {"tabard/backends", "tabard/queue/sqlite", "modernc.org/sqlite"},
	}
}

// bars says whether a prefix forbids a package. database/sql/driver is no way to
// a database: it is where libraries take an interface from.
func bars(prefix, path string) bool {
	return within(path, prefix) && path != "database/sql/driver"
}

// graph says what each package imports.
type graph map[string][]string

// within says whether path is prefix or below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func layerOf(path string) (layer, bool) {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return layer{}, false
	}
	for _, l := range layers() {
		if within(rest, l.prefix) {
			return l, true
		}
	}
	return layer{}, false
}

// directions finds imports that point the wrong way.
func (g graph) directions() []string {
	var out []string
	for _, from := range slices.Sorted(maps.Keys(g)) {
		if !within(from, module) {
			continue
		}
		at, known := layerOf(from)
		if !known {
			out = append(out, from+" has no layer: give it one in internal/house")
			continue
		}
		for _, to := range g[from] {
			if target, ours := layerOf(to); ours && !at.mayImport(target, to) {
				out = append(out, fmt.Sprintf("%s imports %s, which is not below it", from, to))
			}
		}
	}
	return out
}

func (l layer) mayImport(target layer, to string) bool {
	if target.rank < l.rank {
		return true
	}
	return target.rank == l.rank && slices.ContainsFunc(l.also, func(prefix string) bool {
		return within(to, module+"/"+prefix)
	})
}

// reaches finds the shortest chain of imports from a package to one below any
// of the prefixes.
func (g graph) reaches(from string, prefixes []string) []string {
	via := map[string]string{from: ""}
	for todo := []string{from}; len(todo) > 0; todo = todo[1:] {
		at := todo[0]
		if at != from && slices.ContainsFunc(prefixes, func(p string) bool { return bars(p, at) }) {
			var chain []string
			for ; at != ""; at = via[at] {
				chain = append([]string{at}, chain...)
			}
			return chain
		}
		for _, next := range g[at] {
			if _, seen := via[next]; !seen {
				via[next] = at
				todo = append(todo, next)
			}
		}
	}
	return nil
}

// readGraph reads the output of go list -json.
func readGraph(r io.Reader) (graph, error) {
	g := make(graph)
	for dec := json.NewDecoder(r); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		err := dec.Decode(&pkg)
		if err == io.EOF {
			return g, nil
		}
		if err != nil {
			return nil, err
		}
		g[pkg.ImportPath] = pkg.Imports
	}
}

func moduleGraph(t *testing.T) graph {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-json=ImportPath,Imports", "./...")
	cmd.Dir = root
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &errs)
	}
	g, err := readGraph(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestImports(t *testing.T) {
	g := moduleGraph(t)
	for _, fault := range g.directions() {
		t.Error(fault)
	}
	for from, prefixes := range forbidden() {
		if _, ok := g[from]; !ok {
			t.Errorf("%s is not there", from)
		}
		if chain := g.reaches(from, prefixes); chain != nil {
			t.Errorf("%s must not reach %s:\n\t%s", from, chain[len(chain)-1], strings.Join(chain, "\n\t-> "))
		}
	}
}

func TestImportRulesCanFail(t *testing.T) {
	g := graph{
		"tabard/cmd/tabard":    {"tabard/smtpd", "tabard/backends/sqlite"},
		"tabard/smtpd":         {"tabard/internal/helper", "tabard/mta", "tabard/queue", "fmt"},
		"tabard/mta":           {"tabard/lookup"},
		"tabard/queue":         {"tabard/lookup"},
		"tabard/lookup":        {"tabard/table"},
		"tabard/table":         {"tabard/lookup"},
		"tabard/stray":         {"fmt"},
		"tabard/queue/sqlite":  {"tabard/queue"},
		"tabard/backends/file": {"tabard/table", "tabard/backends/static"},
		"tabard/internal/helper": {
			"example.org/orm",
		},
		"example.org/orm": {"database/sql"},
	}
	want := []string{
		"tabard/smtpd imports tabard/mta, which is not below it",
		"tabard/stray has no layer: give it one in internal/house",
		"tabard/table imports tabard/lookup, which is not below it",
	}
	if got := g.directions(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	chain := g.reaches("tabard/smtpd", forbidden()["tabard/smtpd"])
	if want := []string{"tabard/smtpd", "tabard/internal/helper", "example.org/orm", "database/sql"}; !slices.Equal(chain, want) {
		t.Errorf("chain %q", chain)
	}
	if chain := g.reaches("tabard/queue", forbidden()["tabard/queue"]); chain != nil {
		t.Errorf("chain %q", chain)
	}
	read, err := readGraph(strings.NewReader(`{"ImportPath":"a","Imports":["b"]}{"ImportPath":"b"}`))
	if err != nil || !slices.Equal(read["a"], []string{"b"}) || len(read) != 2 {
		t.Errorf("read %v, %v", read, err)
	}
}
