package conf

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRead(t *testing.T) {
	var got []string
	finished := false
	err := Read(write(t, "# comment\n\n  key value with  blanks \r\nother:value\nthird :: v\nurl\t\tldap://h # kept\n"),
		func(key, value string) error {
			got = append(got, key+"="+value)
			return nil
		}, func() error {
			finished = true
			return nil
		})
	want := []string{"key=value with  blanks", "other=value", "third=:: v", "url=ldap://h # kept"}
	if err != nil || !finished || !slices.Equal(got, want) {
		t.Errorf("%q, finished %v, %v", got, finished, err)
	}
}

// Whatever is wrong, the error says in which file and on which line.
func TestErrorsNameFileAndLine(t *testing.T) {
	refused := errors.New("refused")
	set := func(key, _ string) error {
		if key == "bad" {
			return refused
		}
		return nil
	}
	for text, want := range map[string]string{
		"a 1\nb\n":                   `:2: "b" has no value`,
		"a 1\n\n# c\na 2\n":          `:4: "a" is already on line 1`,
		"a 1\nbad 2\n":               ":2: refused",
		"a 1\n":                      ": incomplete",
		strings.Repeat("x", Max+1):   ": larger than 1048576 bytes",
		strings.Repeat("#\n", Max/2): ": incomplete",
	} {
		path := write(t, text)
		err := Read(path, set, func() error { return errors.New("incomplete") })
		if err == nil || err.Error() != path+want {
			t.Errorf("%.20q: %v; want %s", text, err, path+want)
		}
	}
	if err := Parse("", "bad 1", set, nil); err == nil || err.Error() != "1: refused" || !errors.Is(err, refused) {
		t.Errorf("without a name: %v", err)
	}
	if err := Read(filepath.Join(t.TempDir(), "none"), set, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("key value\nother: x\n# c\n")
	f.Fuzz(func(t *testing.T, text string) {
		_ = Parse("f", text, func(key, value string) error {
			if key == "" && !strings.Contains(text, ":") || value == "" || strings.ContainsAny(key, " \t:\n") {
				t.Errorf("%q: key %q, value %q", text, key, value)
			}
			return nil
		}, func() error { return nil })
	})
}
