package config

// eof is what source.look returns behind the last byte.
const eof = -1

// file is one text being read: the configuration or an included file.
type file struct {
	name      string
	text      []byte
	off       int
	line, col int
	ended     bool // the newline that ends every file was handed out
}

// source yields the bytes of the innermost file, with the value of a macro in
// place of its name.
type source struct {
	files []*file
	macro []byte // rest of the value being read
	where Pos    // of the $ that brought macro
}

func (s *source) push(name string, text []byte) {
	s.files = append(s.files, &file{name: name, text: text, line: 1, col: 1})
}

func (s *source) top() *file { return s.files[len(s.files)-1] }

// pos is the place of the next byte; bytes of a macro's value are where it is used.
func (s *source) pos() Pos {
	if len(s.macro) > 0 {
		return s.where
	}
	f := s.top()
	return Pos{File: f.name, Line: f.line, Col: f.col}
}

// rest returns what is left of the text that the next byte belongs to.
func (s *source) rest() []byte {
	if len(s.macro) > 0 {
		return s.macro
	}
	f := s.top()
	return f.text[f.off:]
}

// skip moves on by n bytes of rest.
func (s *source) skip(n int) {
	if len(s.macro) > 0 {
		s.macro = s.macro[n:]
		return
	}
	f := s.top()
	for _, c := range f.text[f.off : f.off+n] {
		f.col++
		if c == '\n' {
			f.line++
			f.col = 1
		}
	}
	f.off += n
}

// look returns the next byte without taking it, and how many bytes it takes.
// Outside quotes a backslash joins lines, or gives the byte after it.
func (s *source) look() (c, width int) {
	for {
		b := s.rest()
		switch {
		case len(b) == 0:
			return eof, 0
		case b[0] != '\\':
			return int(b[0]), 1
		case len(b) == 1:
			s.skip(1)
		case b[1] == '\n':
			s.skip(2)
		case b[1] == '\r' && len(b) > 2 && b[2] == '\n':
			s.skip(3)
		default:
			return int(b[1]), 2
		}
	}
}

// take returns the next byte and moves on.
func (s *source) take() int {
	c, width := s.look()
	s.skip(width)
	return c
}

// takeRaw is take within quotes, where a backslash is a byte like any other.
func (s *source) takeRaw() int {
	b := s.rest()
	if len(b) == 0 {
		return eof
	}
	c := b[0]
	s.skip(1)
	return int(c)
}

// peekRaw is the byte that takeRaw would return.
func (s *source) peekRaw() int {
	if b := s.rest(); len(b) > 0 {
		return int(b[0])
	}
	return eof
}
