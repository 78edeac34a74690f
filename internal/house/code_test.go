package house

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// initFuncs finds init functions: what happens at start is in main.
func initFuncs(u unit) []fault {
	var out []fault
	for _, s := range u {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				out = append(out, s.fault(f.Pos(), "init function"))
			}
		}
	}
	return out
}

// skips finds tests that may be left out.
func skips(u unit) []fault {
	var out []fault
	inTests(u, func(s source, call *ast.CallExpr, _ []ast.Node) {
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			return
		}
		if on, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "f", "tb"}, on.Name) {
			out = append(out, s.fault(call.Pos(), "a test that is skipped tests nothing"))
		}
	})
	return out
}

// sleeps finds tests that wait for a time. Two things are allowed: between two
// looks at what is awaited, in a loop, where nothing tells of it; and in a
// synctest bubble, where no time passes.
func sleeps(u unit) []fault {
	var out []fault
	inTests(u, func(s source, call *ast.CallExpr, around []ast.Node) {
		if isCall(call, "time", "Sleep") && !slices.ContainsFunc(around, mayWait) {
			out = append(out, s.fault(call.Pos(), "time.Sleep: wait for the event"))
		}
	})
	return out
}

// mayWait says whether a node around a sleep makes it one that is allowed. A
// loop with neither condition nor body to leave it by is none.
func mayWait(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.ForStmt:
		return n.Cond != nil || leaves(n.Body)
	case *ast.CallExpr:
		return isCall(n, "synctest", "Test")
	}
	return false
}

// leaves says whether a loop's body can end the loop.
func leaves(body *ast.BlockStmt) bool {
	found := false
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ReturnStmt:
			found = true
		case *ast.BranchStmt:
			found = found || n.Tok == token.BREAK
		}
		return !found
	})
	return found
}

func isCall(call *ast.CallExpr, pkg, name string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	on, ok := sel.X.(*ast.Ident)
	return ok && on.Name == pkg
}

// inTests visits every call in test files, with the nodes around it.
func inTests(u unit, visit func(s source, call *ast.CallExpr, around []ast.Node)) {
	for _, s := range u {
		if !s.isTest() {
			continue
		}
		var around []ast.Node
		ast.Inspect(s.file, func(n ast.Node) bool {
			if n == nil {
				around = around[:len(around)-1]
				return true
			}
			if call, ok := n.(*ast.CallExpr); ok {
				visit(s, call, around)
			}
			around = append(around, n)
			return true
		})
	}
}

// globals finds package variables that can change. Errors, embedded files and
// compile-time assertions are not meant to; neither is an unexported table or
// compiled pattern that nothing in the package writes to.
func globals(u unit) []fault {
	type global struct {
		s    source
		name *ast.Ident
	}
	var out []fault
	tables := make(map[string]global)
	for _, s := range u {
		for _, d := range s.file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for _, spec := range decl.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					switch {
					case name.Name == "_" || isErrorName(name.Name) || isEmbed(decl) || isEmbed(v):
					case !name.IsExported() && i < len(v.Values) && isTable(v.Values[i]):
						tables[name.Name] = global{s, name}
					default:
						out = append(out, s.fault(name.Pos(), "package variable "+name.Name))
					}
				}
			}
		}
	}
	for _, s := range u {
		for _, name := range written(s.file) {
			if g, ok := tables[name.Name]; ok {
				out = append(out, s.fault(name.Pos(), "package variable "+g.name.Name+" is written to"))
			}
		}
	}
	return out
}

func isErrorName(name string) bool {
	return strings.HasPrefix(name, "err") || strings.HasPrefix(name, "Err")
}

// isEmbed says whether a declaration has a go:embed line.
func isEmbed(n ast.Node) bool {
	var doc *ast.CommentGroup
	switch n := n.(type) {
	case *ast.GenDecl:
		doc = n.Doc
	case *ast.ValueSpec:
		doc = n.Doc
	}
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

// isTable says whether a value is filled where it is declared: a literal with
// elements, something compiled from text, or a point in time.
func isTable(value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.CompositeLit:
		return len(v.Elts) > 0
	case *ast.CallExpr:
		return isCall(v, "regexp", "MustCompile") || isCall(v, "strings", "NewReplacer") ||
			isCall(v, "netip", "MustParsePrefix") || isCall(v, "netip", "MustParseAddr") ||
			isCall(v, "time", "Date") || isCall(v, "time", "Unix") || isCall(v, "time", "UnixMilli")
	}
	return false
}

// written finds the names that a file assigns to, takes the address of, or
// changes the elements of. A local name that hides a package's counts too:
// give it another.
func written(file *ast.File) []*ast.Ident {
	var out []*ast.Ident
	add := func(e ast.Expr) {
		if id := base(e); id != nil {
			out = append(out, id)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					add(e)
				}
			}
		case *ast.IncDecStmt:
			add(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				add(n.X)
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
				add(n.Args[0])
			}
		}
		return true
	})
	return out
}

// base is the variable behind an index or a field.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
