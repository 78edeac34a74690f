package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each file of testdata/bad begins with "# MESSAGE"; reading it must fail with an
// error that holds MESSAGE.
func TestBadConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		_, err = Load(path, Options{})
		var one *Error
		if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &one) {
			t.Errorf("%s:\n got %v\nwant %s", path, err, want)
		}
	}
}

func TestSeveralErrors(t *testing.T) {
	_, err := Load("testdata/bad/several.conf", Options{})
	var all Errors
	if !errors.As(err, &all) || len(all) != 3 || all[1].Pos.Line != 4 || all[2].Pos.Line != 6 {
		t.Errorf("got %v, want errors on lines 3, 4 and 6", err)
	}
	// A fault within braces is one fault, not one for each line that is left of them.
	_, err = Parse("x", []byte("table x { a = b,\n c,\n d = e\n}\nmatch for any reject"), Options{})
	if !errors.As(err, &all) || len(all) != 1 || all[0].Pos != (Pos{"x", 2, 2}) {
		t.Errorf("got %v, want one error", err)
	}
	many := strings.Repeat("nonsense\n", 1000)
	if _, err = Parse("x", []byte(many), Options{}); !errors.As(err, &all) || len(all) != maxErrors {
		t.Errorf("%d errors, want %d", len(all), maxErrors)
	}
}
