package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestGoodConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		c, err := Load(path, Options{})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for _, u := range c.Unsupported {
			if !strings.HasPrefix(u.Pos.File, "testdata/good/") || u.Pos.Line == 0 || u.Pos.Col == 0 {
				t.Errorf("%s: %q has no position: %v", path, u.What, u.Pos)
			}
		}
	}
}
