package config

import (
	"fmt"
	"strings"
	"testing"
)

// lexAll returns the tokens of text as one line.
func lexAll(text string, macros map[string]string) string {
	l := lexer{macros: macros, left: maxText}
	l.push("x", []byte(text))
	var out []string
	for {
		tok := l.next()
		switch tok.kind {
		case tokEOF:
			return strings.Join(out, " ")
		case tokNewline:
			out = append(out, ";")
		case tokWord, tokPunct:
			out = append(out, tok.text)
		case tokString:
			out = append(out, "'"+tok.text+"'")
		case tokNumber:
			out = append(out, "#"+tok.text)
		case tokError:
			return strings.Join(append(out, fmt.Sprintf("error %s: %s", tok.pos, tok.text)), " ")
		}
	}
}

func TestLexer(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ";"},
		{"a\n", "a ; ;"},
		{"a\tb\r\nc", "a b ; c ;"},
		{"a # b \" c\nd", "a ; d ;"},
		{"a # b \\\nc\nd", "a ; d ;"}, // a joined line goes on as a comment
		{"ab\\\ncd", "abcd ;"},
		{"ab\\\r\ncd", "abcd ;"},
		{`a\b \"c d"`, "ab 'c d' ;"},
		{`"a b" 'c"d' "e'f"`, `'a b' 'c"d' 'e'f' ;`},
		{`"a\"b\ c\d\\" e"`, `'a"b c\d\" e' ;`},
		{"\"a\nb\\\nc\" d", "'abc' d ;"},
		{"25 10M 4h 127.0.0.1 -5 - -x", "#25 10M 4h 127.0.0.1 #-5 - -x ;"},
		{"10/8 25,26=27}", "10/8 #25 , #26 = #27 } ;"},
		{"{a,b}<t>!k=v=>w()", "{ a , b } < t > ! k = v => w ( ) ;"},
		{":x _y file:/a a:b@c:25 [::1]:53 /p *.d @e ~/m %{f}", ":x _y file:/a a:b@c:25 [::1]:53 /p *.d @e ~/m % { f } ;"},
		{"postgres://u@h/d?a=b!c k=v", "postgres://u@h/d?a=b!c k = v ;"},
		{"bücher.example", "bücher.example ;"},
		{"it's", "it's ;"},
		{`sqlite:"/a b"`, `error x:1:1: quote within a word; put the whole word into quotes`},
		{"a \"b", `a error x:1:3: string is not closed; expected "`},
		{"a \"b\x00\"", `a error x:1:3: NUL byte in a string`},
		{"a\n  \x01", `a ; error x:2:3: unexpected character '\x01'`},
		{"a ^", `a error x:1:3: unexpected character '^'`},
		{strings.Repeat("a", maxToken), strings.Repeat("a", maxToken) + " ;"},
		{strings.Repeat("a", maxToken+1), "error x:1:1: word is longer than 8096 bytes"},
		{strings.Repeat("1", maxToken+1), "error x:1:1: number is too long"},
		{"'" + strings.Repeat("1", maxToken+1), "error x:1:1: string is longer than 8096 bytes"},
		{"\\", ";"},
		{"\\\n", ";"},
	}
	for _, tt := range tests {
		if got := lexAll(tt.in, nil); got != tt.want {
			t.Errorf("%q\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

func TestMacros(t *testing.T) {
	macros := map[string]string{"h": "mx", "two": `a "b c"`, "none": "", "n": "10", "d": "$h", "c": "x # y", "q": `"ab`, "s": `e\`}
	tests := []struct{ in, want string }{
		{"$h.example.org", "mx.example.org ;"},
		{"$two $none $n", "a 'b c' #10 ;"},
		{"$n.1", "10.1 ;"},
		{"${none}", `error x:1:1: expected the name of a macro after "$"`},
		{"a$h", "a$h ;"},
		{`"$h"`, "'$h' ;"},
		{"$c z\nw", "x ; w ;"},
		{`$q cd"`, "'ab cd' ;"},
		{"$s f", "e f ;"},
		{"a $x", `a error x:1:3: macro "x" is not defined`},
		{"$d", `error x:1:1: unexpected character '$'`}, // no macros within macros
	}
	for _, tt := range tests {
		if got := lexAll(tt.in, macros); got != tt.want {
			t.Errorf("%q\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

func TestMacroOverride(t *testing.T) {
	text := "h = one\nhostname $h\nmatch for any reject\n"
	c, err := Parse("x", []byte(text), Options{Macros: map[string]string{"h": "two"}})
	if err != nil || c.Hostname != "two" {
		t.Errorf("%+v, %v; want hostname two", c, err)
	}
	if c, err = Parse("x", []byte(text), Options{}); err != nil || c.Hostname != "one" {
		t.Errorf("%+v, %v; want hostname one", c, err)
	}
}

// A small text with a large macro must not grow without bound.
func TestMacroBomb(t *testing.T) {
	text := "m = '" + strings.Repeat("a ", 4000) + "'\ntable t {" + strings.Repeat("$m ", 10000) + "}\n"
	_, err := Parse("x", []byte(text), Options{})
	if err == nil || !strings.Contains(err.Error(), tooMuchText) {
		t.Errorf("error %.200v; want %s", err, tooMuchText)
	}
}
