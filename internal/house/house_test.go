package house

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// rules are the rules about Go files, each with an example that breaks it and
// one that keeps it. A path other than a.go comes first, up to a colon.
func rules() []struct {
	name      string
	check     func(unit) []fault
	bad, good []string
} {
	long := func(n int) string { return strings.Repeat("\n", n) }
	return []struct {
		name      string
		check     func(unit) []fault
		bad, good []string
	}{
		{"size", tooLong,
			[]string{"package a\n" + long(700), "package a\nfunc f() {" + long(100) + "}\n"},
			[]string{"package a\n" + long(699), "package a\nfunc f() {" + long(99) + "}\n"}},
		{"gofmt", unformatted,
			[]string{"package a\nvar x=1\n"},
			[]string{"package a\n\nvar x = 1\n"}},
		{"comments", undocumented,
			[]string{
				"package a\n", "// Package a\npackage a\nfunc F() {}\n", "// Package a\npackage a\ntype T int\n",
				"// Package a\npackage a\n// T is\ntype T int\nfunc (t *T) M() {}\n", "// Package a\npackage a\nconst (\nA = 1\n)\n",
			},
			[]string{
				"// Package a\npackage a\n// F is\nfunc F() {}\nfunc g() {}\n", "// Package a\npackage a\ntype t int\nfunc (t t) M() {}\n",
				"// Package a\npackage a\n// These are.\nconst (\nA = 1\nB = 2\n)\nvar (\nC = 1 // is\n)\n", "a_test.go:package a\nfunc F() {}\n",
			}},
		{"init", initFuncs,
			[]string{"package a\nfunc init() {}\n"},
			[]string{"package a\ntype t int\nfunc (t) init() {}\n"}},
		{"skip", skips,
			[]string{"a_test.go:package a\nfunc f() { t.Skip() }\n", "a_test.go:package a\nfunc f() { b.Skipf(x) }\n"},
			[]string{"a_test.go:package a\nfunc f() { reader.Skip() }\n", "package a\nfunc f() { t.Skip() }\n"}},
		{"sleep", sleeps,
			[]string{
				"a_test.go:package a\nfunc f() { time.Sleep(1) }\n", "a_test.go:package a\nfunc f() { for { time.Sleep(1) } }\n",
				"a_test.go:package a\nfunc f() { for range 3 { time.Sleep(1) } }\n",
			},
			[]string{
				"package a\nfunc f() { time.Sleep(1) }\n", "a_test.go:package a\nfunc f() { for !done() { time.Sleep(1) } }\n",
				"a_test.go:package a\nfunc f() { for { if done() { return }; time.Sleep(1) } }\n",
				"a_test.go:package a\nfunc f() { synctest.Test(t, func() { time.Sleep(1) }) }\n",
			}},
		{"globals", globals,
			[]string{
				"package a\nvar n int\n", "package a\nvar m = map[int]int{}\n", "package a\nvar M = map[int]int{1: 2}\n",
				"package a\nvar m = map[int]int{1: 2}\nfunc f() { m[1] = 3 }\n", "package a\nvar l = []int{1}\nfunc f() { l = nil }\n",
				"package a\nvar l = [...]int{1}\nfunc f() { l[0]++ }\n", "package a\nvar s = struct{ a int }{1}\nfunc f() { g(&s) }\n",
				"package a\nvar m = map[int]int{1: 2}\nfunc f() { delete(m, 1) }\n", "package a\nvar mu sync.Mutex\n",
			},
			[]string{
				"package a\nvar ErrX = errors.New(\"x\")\nvar errY error\n", "package a\n//go:embed x\nvar files embed.FS\n",
				"package a\nvar _ I = (*T)(nil)\n", "package a\nvar m = map[int]int{1: 2}\nfunc f() int { return m[1] }\n",
				"package a\nvar re = regexp.MustCompile(`x`)\n", "package a\nvar day = time.Unix(0, 0)\n", "package a\nfunc f() { var n int; n++ }\n",
			}},
	}
}

func TestGoFiles(t *testing.T) {
	all := units(t)
	if len(all) < 10 {
		t.Fatalf("found %d packages only", len(all))
	}
	for _, rule := range rules() {
		t.Run(rule.name, func(t *testing.T) {
			for _, u := range all {
				for _, f := range rule.check(u) {
					t.Errorf("%s: %s", f.where, f.what)
				}
			}
		})
	}
}

func TestGoFileRulesCanFail(t *testing.T) {
	for _, rule := range rules() {
		t.Run(rule.name, func(t *testing.T) {
			for _, example := range rule.bad {
				if faults := rule.check(exampleUnit(t, example)); len(faults) != 1 {
					t.Errorf("%q: %v; want one fault", example, faults)
				}
			}
			for _, example := range rule.good {
				if faults := rule.check(exampleUnit(t, example)); len(faults) != 0 {
					t.Errorf("%q: %v; want none", example, faults)
				}
			}
		})
	}
}

func exampleUnit(t *testing.T, example string) unit {
	t.Helper()
	path := "a.go"
	if before, after, ok := strings.Cut(example, ":package"); ok {
		path, example = before, "package"+after
	}
	s, err := parse(path, []byte(example))
	if err != nil {
		t.Fatalf("%q: %v", example, err)
	}
	return unit{s}
}

// machinePath matches places that exist on one machine only. It is put together
// so that this file does not match itself.
func machinePath() *regexp.Regexp {
	return regexp.MustCompile(`/wo` + `rk/(main|shared|\.)|/ro` + `ot/(go|\.)|/tmp/b` + `rief|/home/[a-z]+/(go|src)/`)
}

func machinePaths(path string, text []byte) []string {
	var out []string
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if found := machinePath().Find(line); found != nil {
			out = append(out, fmt.Sprintf("%s:%d: path of one machine: %s", path, n, found))
		}
	}
	return out
}

func TestNoMachinePaths(t *testing.T) {
	walk(t, func(path string, text []byte) {
		for _, found := range machinePaths(path, text) {
			t.Error(found)
		}
	})
	bad := "a\nsee /wo" + "rk/main/x\n"
	if got := machinePaths("f", []byte(bad)); len(got) != 1 || !strings.HasPrefix(got[0], "f:2: ") {
		t.Errorf("got %q", got)
	}
	if got := machinePaths("f", []byte("/var/lib/tabard\n/tmp/x\n")); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
