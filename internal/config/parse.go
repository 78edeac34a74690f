package config

import (
	"maps"
	"slices"
)

// Options changes how a configuration is read. The zero value is the usual.
type Options struct {
	Macros   map[string]string            // -D name=value: override the text's own
	Dialect  Dialect                      // for a text without a `dialect` line; empty: tabard
	ReadFile func(string) ([]byte, error) // for Load and include; nil: the file system
}

// maxErrors is how many faults are looked for in one text.
const maxErrors = 20

// Load reads the configuration in the file path. Its error is an Errors.
func Load(path string, opts Options) (*Config, error) {
	if opts.ReadFile == nil {
		opts.ReadFile = ReadFile
	}
	text, err := opts.ReadFile(path)
	if err != nil {
		return nil, Errors{errorAt(Pos{File: path, Line: 1, Col: 1}, "cannot read the configuration: %v", err)}
	}
	return Parse(path, text, opts)
}

// Parse reads a configuration text; name stands for it in messages, and files
// that it includes are sought beside it. Its error is an Errors. What was
// understood but cannot be carried out yet is no error: see Config.Unsupported.
func Parse(name string, text []byte, opts Options) (*Config, error) {
	p := newParser(opts)
	if len(text) > maxText {
		return nil, Errors{errorAt(Pos{File: name, Line: 1, Col: 1}, "%s", tooMuchText)}
	}
	p.lex.left -= len(text)
	p.lex.push(name, text)
	p.next()
	for p.tok.kind != tokEOF && len(p.errs) < maxErrors {
		if err := p.statement(); err != nil {
			p.errs = append(p.errs, err)
			p.resync()
		}
	}
	if len(p.errs) == 0 {
		p.finish()
	}
	if len(p.errs) > 0 {
		return nil, p.errs[:min(len(p.errs), maxErrors)]
	}
	p.cfg.Unsupported = unsupported(p.cfg)
	return p.cfg, nil
}

// parser holds the state of one reading. tok is the next token, not yet used.
type parser struct {
	cfg         *Config
	lex         lexer
	tok         token
	depth       int // open braces
	errs        Errors
	opts        Options
	reserved    map[string]bool
	tables      map[string]*tableInfo
	dynamic     int // anonymous tables so far
	begun       bool
	includes    int
	bareNewline []*bool // of each listener, nil: not given
}

func newParser(opts Options) *parser {
	if opts.Dialect == "" {
		opts.Dialect = DialectTabard
	}
	if opts.ReadFile == nil {
		opts.ReadFile = ReadFile
	}
	p := &parser{cfg: defaults(), opts: opts, reserved: reservedSet(), tables: builtinTables()}
	p.cfg.Dialect = opts.Dialect
	p.lex.left = maxText
	p.lex.macros = make(map[string]string)
	maps.Copy(p.lex.macros, opts.Macros)
	return p
}

// directive is one kind of statement.
type directive struct {
	word  string
	parse func(p *parser, pos Pos) *Error
}

func directives() []directive {
	return []directive{
		{"action", (*parser).action}, {"admd", (*parser).admd}, {"bounce", (*parser).bounce},
		{"ca", (*parser).ca}, {"control", (*parser).control}, {"custody", (*parser).custody},
		{"dialect", (*parser).dialect},
		{"filter", (*parser).filter}, {"hostname", (*parser).hostname}, {"include", (*parser).include},
		{"listen", (*parser).listen}, {"log", (*parser).logSQL}, {"match", (*parser).match},
		{"mda", (*parser).mda}, {"metrics", (*parser).metrics}, {"mta", (*parser).mta},
		{"pki", (*parser).pki}, {"proc", (*parser).proc}, {"process", (*parser).process},
		{"queue", (*parser).queue}, {"resolver", (*parser).resolver}, {"sandbox", (*parser).sandbox},
		{"scheduler", (*parser).scheduler}, {"smtp", (*parser).smtp}, {"srs", (*parser).srs},
		{"table", (*parser).table},
	}
}

// statement reads one line, or one directive that spans several.
func (p *parser) statement() *Error {
	if p.tok.kind == tokNewline {
		p.next()
		return nil
	}
	p.depth = 0
	first := p.tok
	if first.kind != tokWord {
		return p.unexpected(directiveWords()...)
	}
	p.next()
	var err *Error
	if !p.reserved[first.text] && p.isPunct("=") {
		err = p.macro(first)
	} else if err = p.dispatch(first); err == nil {
		p.begun = true
	}
	if err != nil {
		return err
	}
	return p.endOfLine()
}

func (p *parser) dispatch(first token) *Error {
	for _, d := range directives() {
		if d.word == first.text {
			return d.parse(p, first.pos)
		}
	}
	return errorAt(first.pos, "unknown directive %q; expected one of %s, or NAME = VALUE",
		first.text, listWords(directiveWords()))
}

func directiveWords() []string {
	var words []string
	for _, d := range directives() {
		words = append(words, d.word)
	}
	return words
}

// macro reads NAME = VALUE. A macro given in Options keeps its value.
func (p *parser) macro(name token) *Error {
	for _, c := range []byte(name.text) {
		if !isAlnum(int(c)) && c != '_' {
			return errorAt(name.pos, "name of macro %q may hold letters, digits and _ only", name.text)
		}
	}
	p.next()
	value, err := p.str("value of the macro")
	if err != nil {
		return err
	}
	if _, fixed := p.opts.Macros[name.text]; !fixed {
		p.lex.macros[name.text] = value
	}
	return nil
}

// resync skips to the line after a fault, and out of its braces.
func (p *parser) resync() {
	for p.tok.kind != tokEOF && (p.tok.kind != tokNewline || p.depth > 0) {
		p.next()
	}
}

func (p *parser) next() {
	p.tok = p.lex.next()
	if p.isPunct("{") {
		p.depth++
	}
	if p.isPunct("}") {
		p.depth--
	}
}

func (p *parser) endOfLine() *Error {
	if p.tok.kind != tokNewline && p.tok.kind != tokEOF {
		return p.unexpected("end of line")
	}
	return nil
}

// dialect reads the first line of a file, `dialect opensmtpd`.
func (p *parser) dialect(pos Pos) *Error {
	if p.begun {
		return errorAt(pos, "dialect must be the first directive")
	}
	name, err := p.oneOf(string(DialectTabard), string(DialectOpenSMTPD))
	p.cfg.Dialect = Dialect(name)
	return err
}

// words returns every word that the language knows, for the manual's test.
func words() []string {
	all := slices.Concat(directiveWords(), Reserved(), contextualWords())
	slices.Sort(all)
	return slices.Compact(all)
}
