package house

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root is the top of the repository, seen from this package.
const root = "../.."

// source is one parsed file.
type source struct {
	path string // from the root
	text []byte
	fset *token.FileSet
	file *ast.File
}

// fault is one breach of a rule.
type fault struct {
	where string // file:line
	what  string
}

func (s source) fault(pos token.Pos, what string) fault {
	at := s.fset.Position(pos)
	at.Filename = s.path
	at.Column = 0
	return fault{at.String(), what}
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// unit is the files of one directory and package name.
type unit []source

// parse makes a source from text.
func parse(path string, text []byte) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
	return source{path, text, fset, file}, err
}

// walk calls visit for every file of the repository that people wrote.
func walk(t *testing.T, visit func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && strings.HasPrefix(name, ".") && name != ".ci" {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || bytes.IndexByte(text, 0) >= 0 {
			return err
		}
		rel, err := filepath.Rel(root, path)
		visit(filepath.ToSlash(rel), text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// units parses every Go file outside of testdata.
func units(t *testing.T) []unit {
	t.Helper()
	byPackage := make(map[string]unit)
	var order []string
	walk(t, func(path string, text []byte) {
		if !strings.HasSuffix(path, ".go") || strings.Contains(path, "testdata/") {
			return
		}
		s, err := parse(path, text)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		key := filepath.Dir(path) + " " + s.file.Name.Name
		if byPackage[key] == nil {
			order = append(order, key)
		}
		byPackage[key] = append(byPackage[key], s)
	})
	var out []unit
	for _, key := range order {
		out = append(out, byPackage[key])
	}
	return out
}

// Limits of size, in lines. What is near them wants to be two things.
const (
	maxFileLines = 700
	maxFuncLines = 100
)

// tooLong finds long files and functions.
func tooLong(u unit) []fault {
	var out []fault
	for _, s := range u {
		if n := bytes.Count(s.text, []byte("\n")); n > maxFileLines {
			out = append(out, s.fault(s.file.Package, "file is too long"))
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && s.fset.Position(f.End()).Line-s.fset.Position(f.Pos()).Line >= maxFuncLines {
				out = append(out, s.fault(f.Pos(), f.Name.Name+" is too long"))
			}
		}
	}
	return out
}

// unformatted finds files that gofmt would change.
func unformatted(u unit) []fault {
	var out []fault
	for _, s := range u {
		if want, err := format.Source(s.text); err != nil || !bytes.Equal(want, s.text) {
			out = append(out, s.fault(s.file.Package, "not as gofmt writes it"))
		}
	}
	return out
}

// undocumented finds exported names without a comment, and packages.
func undocumented(u unit) []fault {
	var out []fault
	packageDoc := false
	var first *source
	for i, s := range u {
		packageDoc = packageDoc || s.file.Doc != nil
		if s.isTest() {
			continue
		}
		if first == nil {
			first = &u[i]
		}
		for _, d := range s.file.Decls {
			out = append(out, undocumentedDecl(s, d)...)
		}
	}
	if first != nil && !packageDoc {
		out = append(out, first.fault(first.file.Package, "package "+first.file.Name.Name+" has no comment"))
	}
	return out
}

func undocumentedDecl(s source, d ast.Decl) []fault {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			return []fault{s.fault(d.Pos(), d.Name.Name+" has no comment")}
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		var out []fault
		for _, spec := range d.Specs {
			for _, name := range undocumentedNames(spec) {
				out = append(out, s.fault(name.Pos(), name.Name+" has no comment"))
			}
		}
		return out
	}
	return nil
}

// undocumentedNames returns the exported names of a type, constant or variable
// that has no comment before or behind it.
func undocumentedNames(spec ast.Spec) []*ast.Ident {
	var names []*ast.Ident
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Doc == nil && spec.Comment == nil {
			names = []*ast.Ident{spec.Name}
		}
	case *ast.ValueSpec:
		if spec.Doc == nil && spec.Comment == nil {
			names = spec.Names
		}
	}
	var out []*ast.Ident
	for _, name := range names {
		if name.IsExported() {
			out = append(out, name)
		}
	}
	return out
}

// exportedReceiver says whether a function is seen from other packages: its
// receiver, if it has one, is exported.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return true
	}
	exported := true
	ast.Inspect(f.Recv.List[0].Type, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if ok {
			exported = id.IsExported()
		}
		return !ok
	})
	return exported
}
