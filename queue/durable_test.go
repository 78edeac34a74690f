package queue_test

import (
	"os"
	"path/filepath"
	"testing"
)

// bodyFiles lists the bodies beside a database.
func bodyFiles(t testing.TB, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(path), "messages"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != ".lock" {
			names = append(names, e.Name())
		}
	}
	return names
}
