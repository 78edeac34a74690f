package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Bounds on include: how deep files may nest, and how many in all.
const (
	maxIncludeDepth = 16
	maxIncludes     = 256
)

// ReadFile is os.ReadFile with a bound, so that /dev/zero does no harm. It is what
// Options.ReadFile is when nothing else is said.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// include reads `include "path"`. A relative path is sought beside the file that
// holds the directive. The text takes effect from the next token on.
func (p *parser) include(pos Pos) *Error {
	var path string
	if err := p.into(&path, "path of a file to include"); err != nil {
		return err
	}
	if err := p.endOfLine(); err != nil {
		return err
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(pos.File), path)
	}
	if err := p.checkInclude(pos, path); err != nil {
		return err
	}
	text, err := p.opts.ReadFile(path)
	if err != nil {
		return errorAt(pos, "cannot include %q: %v", path, err)
	}
	if p.lex.left -= len(text); p.lex.left < 0 {
		return errorAt(pos, "cannot include %q: %s", path, tooMuchText)
	}
	p.lex.push(path, text)
	return nil
}

func (p *parser) checkInclude(pos Pos, path string) *Error {
	for _, f := range p.lex.files {
		if filepath.Clean(f.name) == filepath.Clean(path) {
			return errorAt(pos, "%q includes itself", path)
		}
	}
	if len(p.lex.files) > maxIncludeDepth {
		return errorAt(pos, "include nested deeper than %d files", maxIncludeDepth)
	}
	if p.includes++; p.includes > maxIncludes {
		return errorAt(pos, "more than %d included files", maxIncludes)
	}
	return nil
}
