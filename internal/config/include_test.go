package config

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// files is a ReadFile over a map.
func files(all map[string]string) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		text, ok := all[path]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(text), nil
	}
}

func TestInclude(t *testing.T) {
	c, err := Load("/etc/a.conf", Options{ReadFile: files(map[string]string{
		"/etc/a.conf":   "n = d/b.conf\ninclude $n\nhostname $h\ninclude \"/x/c\"\nmatch for any reject",
		"/etc/d/b.conf": "h = mx.example.org\ninclude \"e\"",
		"/etc/d/e":      "# nothing\nadmd e",
		"/x/c":          "match for local reject",
	})})
	if err != nil || c.Hostname != "mx.example.org" || len(c.Matches) != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	if want := (Pos{"/x/c", 1, 1}); c.Matches[0].Pos != want || c.Matches[1].Pos != (Pos{"/etc/a.conf", 5, 1}) {
		t.Errorf("positions %v and %v", c.Matches[0].Pos, c.Matches[1].Pos)
	}
}

func TestIncludeErrors(t *testing.T) {
	deep := map[string]string{"0": "include '1'\n"}
	for i := 1; i < 40; i++ {
		deep[fmt.Sprint(i)] = fmt.Sprintf("include '%d'\n", i+1)
	}
	tests := []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{}, "0:1:1: cannot read the configuration: file does not exist"},
		{map[string]string{"0": "include '1'\n"}, `0:1:1: cannot include "1": file does not exist`},
		{map[string]string{"0": "include '1'", "1": "\ninclude './0'"}, `1:2:1: "0" includes itself`},
		{deep, "16:1:1: include nested deeper than 16 files"},
		{map[string]string{"0": strings.Repeat("include '1'\n", 300), "1": "#"}, "0:257:1: more than 256 included files"},
		{map[string]string{"0": "include '1'\n", "1": "bad"}, `1:1:1: unknown directive "bad"`},
		{map[string]string{"0": "include '1' '2'\n"}, `0:1:13: unexpected "2"; expected end of line`},
		{map[string]string{"0": strings.Repeat("include '1'\n", 9), "1": strings.Repeat("#\n", 1<<18)},
			`0:8:1: cannot include "1": more than 4 MiB`},
	}
	for _, tt := range tests {
		_, err := Load("0", Options{ReadFile: files(tt.files)})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v\nwant %s", err, tt.want)
		}
	}
}
