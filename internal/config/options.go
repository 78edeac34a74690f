package config

import "slices"

// option is one keyword of a directive, and the reader of what follows it. T is
// what is being filled in.
type option[T any] struct {
	word  string
	parse func(p *parser, t *T) *Error
	group string // options of one group exclude each other; empty: the word itself
	many  bool   // may be repeated
}

// parseOptions reads options in any order until the line ends. stop names words
// that end them before; it is left for the caller to take them.
func parseOptions[T any](p *parser, t *T, opts []option[T], stop ...string) *Error {
	seen := make(map[string]bool)
	for p.tok.kind != tokNewline && p.tok.kind != tokEOF {
		if p.tok.kind == tokWord && slices.Contains(stop, p.tok.text) {
			return nil
		}
		if err := parseOption(p, t, opts, seen, stop); err != nil {
			return err
		}
	}
	return nil
}

func parseOption[T any](p *parser, t *T, opts []option[T], seen map[string]bool, stop []string) *Error {
	i := slices.IndexFunc(opts, func(o option[T]) bool { return p.isWord(o.word) })
	if i < 0 {
		return unknownOption(p, append(optionWords(opts), stop...))
	}
	o := opts[i]
	if o.group == "" {
		o.group = o.word
	}
	if seen[o.group] && !o.many {
		return errorAt(p.tok.pos, "%s already specified", o.group)
	}
	seen[o.group] = true
	p.next()
	return o.parse(p, t)
}

func unknownOption(p *parser, want []string) *Error {
	if p.tok.kind != tokWord {
		return p.unexpected(want...)
	}
	return errorAt(p.tok.pos, "unknown option %q; expected one of %s", p.tok.text, listWords(want))
}

func optionWords[T any](opts []option[T]) []string {
	var words []string
	for _, o := range opts {
		words = append(words, o.word)
	}
	return words
}

// flag is an option without an argument.
func flag[T any](word string, field func(t *T) *bool) option[T] {
	return option[T]{word: word, parse: func(_ *parser, t *T) *Error {
		*field(t) = true
		return nil
	}}
}

// text is an option with one text.
func text[T any](word, what string, field func(t *T) *string) option[T] {
	return option[T]{word: word, parse: func(p *parser, t *T) *Error { return p.name(field(t), what) }}
}

// tableOption is an option with a table, a list or a single text.
func tableOption[T any](word string, shapes shape, field func(t *T) *TableRef) option[T] {
	return option[T]{word: word, parse: func(p *parser, t *T) *Error {
		return p.tableArg(field(t), word, shapes)
	}}
}
