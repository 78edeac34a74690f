package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// prelude declares one of each thing that an option can name: a table of each
// shape, files of certificates, filters, a wrapper, actions.
const prelude = `
table t sqlite:/t.db
table list { a, b }
table map { a = b }
pki mx.example.org cert "/c" key "/k"
pki "*" cert "/c" key "/k"
ca example.org cert "/ca"
proc p "cmd"
filter f proc p
filter g proc-exec "cmd"
mda wrapper w "cmd %{mda}"
srs key "k"
action "a" mbox
`

// parse reads the prelude and text, and a rule, without which nothing is right.
func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("test.conf", []byte(prelude+text+"\nmatch for any reject\n"), Options{})
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return c
}

// same compares but for positions.
func same(t *testing.T, text string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(Pos{})); diff != "" {
		t.Errorf("%s\n(-want +got)\n%s", text, diff)
	}
}
