package smtpd

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// collected is a sink for tests.
type collected struct{ bytes.Buffer }

func (c *collected) take(p []byte) { c.Write(p) }

// outcome is what became of one stream of input.
type outcome struct {
	body string
	rest string // input behind the end of data
	done bool
	err  error
}

// feed runs a scanner over input that arrives in the given pieces, as a
// connection does.
func feed(sc scanner, pieces ...string) outcome {
	var w collected
	var have []byte
	for i, p := range pieces {
		have = append(have, p...)
		n, done, err := sc.scan(have, &w)
		have = have[n:]
		if done || err != nil {
			rest := string(have) + strings.Join(pieces[i+1:], "")
			return outcome{w.String(), rest, done && err == nil, err}
		}
	}
	return outcome{body: w.String()}
}

// split cuts s at every place in turn, into single bytes, and leaves it whole.
func splits(s string) [][]string {
	all := [][]string{{s}, strings.Split(s, "")}
	for i := 1; i < len(s); i++ {
		all = append(all, []string{s[:i], s[i:]})
	}
	return all
}

func TestScannerStrict(t *testing.T) {
	tests := []struct {
		in, body, rest string
		err            error
	}{
		{in: ".\r\n"},
		{in: "a\r\n.\r\n", body: "a\r\n"},
		{in: "a\r\n.\r\nMAIL FROM:<x>\r\n", body: "a\r\n", rest: "MAIL FROM:<x>\r\n"},
		{in: "\r\n.\r\n", body: "\r\n"},
		{in: "..\r\n.\r\n", body: ".\r\n"},
		{in: "..a\r\n...\r\n.\r\n", body: ".a\r\n..\r\n"},
		{in: ".a\r\n.\r\n", body: "a\r\n"},
		{in: "a.\r\nb\r\n.\r\n", body: "a.\r\nb\r\n"},
		// Every other end of data that some server somewhere believes in.
		{in: "a\n.\nMAIL", err: errBareLF},
		{in: "a\n.\r\n.\r\n", err: errBareLF},
		{in: "a\r\n.\nMAIL\r\n.\r\n", err: errBareLF},
		{in: "a\r.\rMAIL", err: errBareCR},
		{in: "a\r.\r\nMAIL", err: errBareCR},
		{in: "a\r\n.\rMAIL", err: errBareCR},
		{in: "a\r\r\n.\r\n", err: errBareCR},
		{in: "a\r\n\r.\r\n", err: errBareCR},
		{in: "a\r\n.\r\r\nMAIL", err: errBareCR},
		{in: "a\n\r\n.\r\n", err: errBareLF},
		{in: "a\r\n\n.\r\n.\r\n", err: errBareLF},
		{in: "a\r\n.\n\r\n.\r\n", err: errBareLF},
		{in: "\n.\r\n.\r\n", err: errBareLF},
		{in: "\n\r\n.\r\n", err: errBareLF},
		{in: "\x00\r\n.\r\n", err: errNUL},
		{in: "a\x00b\r\n.\r\n", err: errNUL},
		{in: ".\x00\r\n.\r\n", err: errNUL},
		{in: "a\r\x00\n.\r\n", err: errBareCR},
	}
	for _, tt := range tests {
		for _, pieces := range splits(tt.in) {
			got := feed(scanner{dots: true}, pieces...)
			if tt.err != nil {
				// Which of several faults is named depends on where the network
				// cut; that the message is refused does not.
				if got.err == nil || got.done {
					t.Errorf("%q: %+v, want %v", pieces, got, tt.err)
				}
				if len(pieces) == 1 && !errors.Is(got.err, tt.err) {
					t.Errorf("%q: %v, want %v", pieces, got.err, tt.err)
				}
				continue
			}
			if want := (outcome{tt.body, tt.rest, true, nil}); got != want {
				t.Errorf("%q: %+v, want %+v", pieces, got, want)
			}
		}
	}
}

func TestScannerNormalize(t *testing.T) {
	tests := []struct {
		in, body string
		open     bool
	}{
		{in: "a\nb\r\n.\r\n", body: "a\r\nb\r\n"},
		{in: "a\rb\r\n.\r\n", body: "a\r\nb\r\n"},
		{in: "a\r\r\n.\r\n", body: "a\r\n\r\n"},
		{in: "a\n\r\n.\r\n", body: "a\r\n\r\n"},
		{in: "..a\nb\r\n.\r\n", body: ".a\r\nb\r\n"},
		{in: "a\n..b\r\n.\r\n", body: "a\r\n..b\r\n"},
		// None of these ends the message.
		{in: "a\n.\n", body: "a\r\n.\r\n", open: true},
		{in: "a\n.\r\n", body: "a\r\n.\r\n", open: true},
		{in: "a\r.\r\n", body: "a\r\n.\r\n", open: true},
		{in: "a\r\n.\n", body: "a\r\n\r\n", open: true},
		{in: "a\r\n.\rb", body: "a\r\n\r\nb", open: true},
		{in: "a\n.\r\nb\r\n.\r\n", body: "a\r\n.\r\nb\r\n"},
	}
	for _, tt := range tests {
		for _, pieces := range splits(tt.in) {
			got := feed(scanner{dots: true, normalize: true}, pieces...)
			if got.body != tt.body || got.done == tt.open || got.err != nil {
				t.Errorf("%q: %+v, want %+v", pieces, got, tt)
			}
		}
	}
	if got := feed(scanner{dots: true, normalize: true}, "a\x00\r\n.\r\n"); !errors.Is(got.err, errNUL) {
		t.Errorf("NUL: %+v", got)
	}
}

func TestScannerLongLine(t *testing.T) {
	for _, n := range []int{maxLine, maxLine + 1} {
		line := strings.Repeat("x", n)
		sc := scanner{dots: true}
		var w collected
		for i := 0; i < n; i += 1000 {
			if _, _, err := sc.scan([]byte(line[i:min(i+1000, n)]), &w); err != nil {
				t.Fatal(err)
			}
		}
		if sc.long != (n > maxLine) || w.Len() != n {
			t.Errorf("line of %d: long %v, %d bytes", n, sc.long, w.Len())
		}
	}
}

func TestChunks(t *testing.T) {
	tests := []struct {
		in, strict, normal string
		err                error
	}{
		{in: "a\r\n", strict: "a\r\n", normal: "a\r\n"},
		{in: "a", strict: "a\r\n", normal: "a\r\n"},
		{in: "", strict: "", normal: ""},
		{in: "a\r\n.\r\nb\r\n", strict: "a\r\n.\r\nb\r\n", normal: "a\r\n.\r\nb\r\n"},
		{in: "..a", strict: "..a\r\n", normal: "..a\r\n"},
		{in: "a\nb", err: errBareLF, normal: "a\r\nb\r\n"},
		{in: "a\rb", err: errBareCR, normal: "a\r\nb\r\n"},
		{in: "a\r", err: errBareCR, normal: "a\r\n"},
		{in: "a\r\r", err: errBareCR, normal: "a\r\n\r\n"},
		{in: "a\r\r\n", err: errBareCR, normal: "a\r\n\r\n"},
	}
	run := func(normalize bool, pieces []string) (string, error) {
		k := chunks{scanner: scanner{normalize: normalize}}
		var w collected
		for _, p := range pieces {
			if err := k.add([]byte(p), &w); err != nil {
				return "", err
			}
			if err := k.add(nil, &w); err != nil {
				return "", err
			}
		}
		err := k.end(&w)
		return w.String(), err
	}
	for _, tt := range tests {
		for _, pieces := range splits(tt.in) {
			got, err := run(false, pieces)
			if (tt.err == nil) != (err == nil) || err == nil && got != tt.strict {
				t.Errorf("strict %q: %q, %v; want %q, %v", pieces, got, err, tt.strict, tt.err)
			}
			if got, err := run(true, pieces); err != nil || got != tt.normal {
				t.Errorf("normalize %q: %q, %v; want %q", pieces, got, err, tt.normal)
			}
		}
	}
	if _, err := run(true, []string{"\x00"}); !errors.Is(err, errNUL) {
		t.Errorf("NUL: %v", err)
	}
}

// reference reads DATA content the slow and obvious way.
func reference(in []byte) outcome {
	var body []byte
	for i := 0; ; {
		end := bytes.Index(in[i:], []byte("\r\n"))
		if end < 0 {
			return outcome{}
		}
		line := in[i : i+end]
		if bytes.ContainsAny(line, "\r\n\x00") {
			return outcome{err: errBareLF}
		}
		i += end + 2
		if string(line) == "." {
			return outcome{string(body), string(in[i:]), true, nil}
		}
		body = append(body, bytes.TrimPrefix(line, []byte("."))...)
		body = append(body, '\r', '\n')
	}
}

func FuzzScanner(f *testing.F) {
	for _, s := range []string{"a\r\n..b\r\n.\r\nQUIT\r\n", "a\n.\r\n", "a\r\r\n.\r\n", ".\r\n", "\x00", "a\r\n.\r"} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		var pieces []string
		for rest := string(in); rest != ""; {
			n := 1 + r.IntN(min(len(rest), 1+r.IntN(20)))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		want, got := reference(in), feed(scanner{dots: true}, pieces...)
		switch {
		case want.done && got != want:
			t.Fatalf("%q: %+v, want %+v", pieces, got, want)
		case want.err != nil && got.err == nil:
			t.Fatalf("%q: %+v, want an error", pieces, got)
		case got.done && !want.done:
			t.Fatalf("%q: ended with %+v, but there is no end", pieces, got)
		}
		checkNormalized(t, pieces)
	})
}

// checkNormalized holds what normalizing promises whatever comes in: no bare CR,
// bare LF or NUL is kept, and no other end is believed than CRLF.CRLF.
func checkNormalized(t *testing.T, pieces []string) {
	got := feed(scanner{dots: true, normalize: true}, pieces...)
	plain := strings.ReplaceAll(got.body, "\r\n", "")
	if got.err == nil && strings.ContainsAny(plain, "\r\n\x00") {
		t.Fatalf("%q: kept %q", pieces, got.body)
	}
	all := strings.Join(pieces, "")
	used := all[:len(all)-len(got.rest)]
	if got.done && used != ".\r\n" && !strings.HasSuffix(used, "\r\n.\r\n") {
		t.Fatalf("%q: ended after %q", pieces, used)
	}
}
