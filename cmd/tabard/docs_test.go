package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tabard/internal/config"
)

// Every example configuration loads, and this version carries all of it out.
func TestExampleConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../docs/examples/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		cfg, err := config.Load(f, config.Options{})
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if err := refuse(cfg); err != nil {
			t.Errorf("%v", err)
		}
	}
}

var command = regexp.MustCompile(`(?m)^\s*(?:go run \./cmd/)?tabard ([a-z][^\n]*)$`)

// Every tabard command in a code block of README and docs is one that exists,
// with flags that exist.
func TestDocumentedCommands(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range append(files, "../../README.md") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			for _, m := range command.FindAllStringSubmatch(block[1], -1) {
				seen++
				cmd, rest, err := newRoot().Find(strings.Fields(m[1]))
				if err != nil || cmd.RunE == nil {
					t.Errorf("%s: tabard %s: %v", f, m[1], err)
					continue
				}
				if err := cmd.ParseFlags(rest); err != nil {
					t.Errorf("%s: tabard %s: %v", f, m[1], err)
				}
				if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
					t.Errorf("%s: tabard %s: %v", f, m[1], err)
				}
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d commands found", seen)
	}
}
