package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// seed adds every configuration of testdata.
func seed(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.conf", "testdata/good/*.conf", "testdata/good/parts/*.conf"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
}

// Whatever the text: no panic, a position in every error, references that exist.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		opts := Options{ReadFile: func(string) ([]byte, error) { return []byte("m = x\n"), nil }}
		c, err := Parse("f.conf", text, opts)
		if err == nil {
			checkReferences(t, c)
			return
		}
		var all Errors
		if !errors.As(err, &all) || len(all) == 0 || len(all) > maxErrors || c != nil {
			t.Fatalf("error %T %v", err, err)
		}
		for _, e := range all {
			if e.Pos.File == "" || e.Pos.Line < 1 || e.Pos.Col < 1 || e.Msg == "" {
				t.Fatalf("bad error %#v", e)
			}
		}
	})
}

func checkReferences(t *testing.T, c *Config) {
	known := map[TableRef]bool{"": true}
	for name := range builtinTables() {
		known[TableRef(name)] = true
	}
	for _, table := range c.Tables {
		known[TableRef(table.Name)] = true
	}
	for _, a := range c.Actions {
		for _, ref := range []TableRef{a.Alias, a.Virtual, a.UserBase, a.Host, a.Domain, a.Sender, a.Auth, a.Src, a.CATable} {
			if !known[ref] {
				t.Fatalf("action %q names unknown table %q", a.Name, ref)
			}
		}
	}
	for _, m := range c.Matches {
		if !known[m.FromCond.Table] || !known[m.ForCond.Table] || m.Reject == (m.Action != "") {
			t.Fatalf("bad rule %+v", m)
		}
	}
	for _, l := range c.Listeners {
		if l.Port == "" && !l.Socket || l.TLS != TLSNone && len(l.PKINames)+len(l.PKITables) == 0 {
			t.Fatalf("bad listener %+v", l)
		}
	}
}

// The lexer ends, takes every byte once, and its positions never go back.
func FuzzLex(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		l := lexer{macros: map[string]string{"m": "a \"b\" 1", "e": ""}, left: maxText}
		l.push("x", text)
		last := Pos{Line: 1, Col: 1}
		for range 2*len(text)*8 + 2 {
			tok := l.next()
			if tok.kind == tokEOF {
				return
			}
			if tok.pos.Line < last.Line || tok.pos.Line == last.Line && tok.pos.Col < last.Col {
				t.Fatalf("%s at %v, after %v", tok, tok.pos, last)
			}
			last = tok.pos
		}
		t.Fatal("the lexer does not end")
	})
}

func BenchmarkParse(b *testing.B) {
	text, err := os.ReadFile("testdata/good/opensmtpd-server.conf")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse("x", text, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
