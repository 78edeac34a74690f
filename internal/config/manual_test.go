package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// manual returns the manual page of the language.
func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/tabard.conf.5.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every word that the parser knows stands in the manual, as code.
func TestManualKnowsEveryWord(t *testing.T) {
	known := make(map[string]bool)
	prose := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(manual(t), "")
	for _, code := range regexp.MustCompile("`[^`]+`").FindAllString(prose, -1) {
		for _, word := range strings.FieldsFunc(code, func(r rune) bool { return strings.ContainsRune("` \n,()[]{}<>\"|", r) }) {
			known[word] = true
		}
	}
	for _, word := range words() {
		if !known[word] {
			t.Errorf("the manual does not tell of %q", word)
		}
	}
	for _, word := range Reserved() {
		if !strings.Contains(manual(t), "`"+word+"`") {
			t.Errorf("the manual does not list the reserved word %q", word)
		}
	}
}

// The manual's list of what is not supported is the program's.
func TestManualListsUnsupported(t *testing.T) {
	_, list, _ := strings.Cut(manual(t), "## Not supported yet")
	var told []string
	for line := range strings.Lines(list) {
		if what, ok := strings.CutPrefix(line, "* "); ok {
			told = append(told, strings.TrimSpace(what))
		}
	}
	have := whats()
	slices.Sort(have)
	slices.Sort(told)
	same(t, "list", told, slices.Compact(have))
}

// The manual's examples work.
func TestManualExamples(t *testing.T) {
	examples := regexp.MustCompile("(?s)```conf\n(.*?)```").FindAllStringSubmatch(manual(t), -1)
	if len(examples) == 0 {
		t.Fatal("no examples")
	}
	for _, e := range examples {
		if c, err := Parse("example", []byte(e[1]), Options{}); err != nil || len(c.Unsupported) > 0 {
			t.Errorf("%s\n%v %v", e[1], err, c)
		}
	}
}
