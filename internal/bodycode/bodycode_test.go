package bodycode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"tabard/internal/sealing"
)

func ring(t testing.TB, old *sealing.Ring) *sealing.Ring {
	t.Helper()
	r, err := old.WithNewKey()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func coder(t testing.TB, compress bool, keys *sealing.Ring) *Coder {
	t.Helper()
	c, err := New(Options{Compress: compress, Encrypt: keys != nil, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// text is n bytes that shrink, and no two parts of which are the same.
func text(n int) []byte {
	b := make([]byte, 0, n+20)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "line %d of the mail\r\n", i)
	}
	return b[:n]
}

// noise is n bytes that do not shrink.
func noise(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// stream encodes a body by a Writer, in odd pieces.
func stream(t testing.TB, c *Coder, id int64, body []byte) ([]byte, Encoding) {
	t.Helper()
	var out bytes.Buffer
	w, err := c.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for rest := body; len(rest) > 0; {
		n := min(len(rest), 30_011)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("written after the end")
	}
	return out.Bytes(), w.Encoding()
}

// decode reads a whole stored body.
func decode(c *Coder, stored []byte, e Encoding, id, size int64) ([]byte, error) {
	if e == "" {
		return stored, nil
	}
	r, err := c.NewReader(bytes.NewReader(stored), int64(len(stored)), e, id, size)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(r, 0, r.Size()+1))
}

func sizes() []int {
	return []int{0, 1, 300, ChunkSize - 1, ChunkSize, ChunkSize + 1, 2 * ChunkSize, 5*ChunkSize + 77}
}

func TestRoundTrip(t *testing.T) {
	keys := ring(t, nil)
	for name, c := range map[string]*Coder{"none": coder(t, false, nil), "zstd": coder(t, true, nil), "aes": coder(t, false, keys), "both": coder(t, true, keys)} {
		for kind, make := range map[string]func(int) []byte{"text": text, "noise": noise} {
			for _, size := range sizes() {
				body := make(size)
				whole, e, err := c.Encode(7, body)
				if err != nil {
					t.Fatal(err)
				}
				streamed, se := whole, e
				if !c.Plain() {
					streamed, se = stream(t, c, 7, body)
				}
				for how, got := range map[string]func() ([]byte, error){
					"whole":    func() ([]byte, error) { return decode(c, whole, e, 7, int64(size)) },
					"streamed": func() ([]byte, error) { return decode(c, streamed, se, 7, int64(size)) },
				} {
					if b, err := got(); err != nil || !bytes.Equal(b, body) {
						t.Errorf("%s, %s of %d, %s: %d bytes, %v", name, kind, size, how, len(b), err)
					}
				}
				if e.Key() != "" && size > 20 && bytes.Contains(whole, body[:20]) {
					t.Errorf("%s, %s of %d: in clear", name, kind, size)
				}
				if kind == "text" && name != "none" && name != "aes" && size > 200 && len(whole) > size/2+saltSize+20 {
					t.Errorf("%s of %d: stored in %d bytes", name, size, len(whole))
				}
			}
		}
	}
}

// What does not shrink is stored as it is.
func TestWhatDoesNotShrink(t *testing.T) {
	c := coder(t, true, nil)
	for _, size := range []int{0, 5, ChunkSize} {
		if stored, e, err := c.Encode(1, noise(size)); e != "" || len(stored) != size || err != nil {
			t.Errorf("%d bytes: %d bytes as %q, %v", size, len(stored), e, err)
		}
	}
	if stored, _ := stream(t, c, 1, noise(3*ChunkSize)); len(stored) != 3*(ChunkSize+headSize) {
		t.Errorf("streamed: %d bytes", len(stored))
	}
}

func TestEncodingNames(t *testing.T) {
	keys := ring(t, nil)
	id := keys.IDs()[0]
	for want, c := range map[string]*Coder{
		"": coder(t, false, nil), "zstd": coder(t, true, nil),
		"aes-256-gcm:" + id: coder(t, false, keys), "zstd+aes-256-gcm:" + id: coder(t, true, keys),
	} {
		if got := c.Encoding(); string(got) != want || !got.Known() || got.Key() != "" && got.Key() != id {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, e := range []Encoding{"", "gzip", "zstd+", "zstdx", "aes-256-gcm:" + Encoding(id) + "+zstd", "zstd+zstd", "aes-256-gcm:"} {
		if _, err := coder(t, true, keys).NewReader(bytes.NewReader(nil), 0, e, 1, 0); err == nil || errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", e, err)
		}
	}
	if _, err := New(Options{Encrypt: true}); err == nil {
		t.Error("encryption without a key")
	}
}

func TestReadAtOddOffsets(t *testing.T) {
	c := coder(t, true, ring(t, nil))
	body := append(text(2*ChunkSize+500), noise(ChunkSize)...)
	stored, e := stream(t, c, 3, body)
	r, err := c.NewReader(bytes.NewReader(stored), int64(len(stored)), e, 3, int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		off, n := rnd.IntN(len(body)+10), rnd.IntN(2*ChunkSize)
		p := make([]byte, n)
		got, err := r.ReadAt(p, int64(off))
		want := body[min(off, len(body)):min(off+n, len(body))]
		if !bytes.Equal(p[:got], want) || (err != nil) != (got < n) || err != nil && err != io.EOF {
			t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
		}
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read before the beginning")
	}
}

// split takes a stored body apart: what comes before the chunks, and they.
func split(t *testing.T, stored []byte, head int) (begin []byte, chunks [][]byte) {
	t.Helper()
	begin, stored = stored[:head], stored[head:]
	for len(stored) > 0 {
		n := headSize + int(binary.BigEndian.Uint32(stored)&lengthMask)
		chunks, stored = append(chunks, stored[:n]), stored[n:]
	}
	return begin, chunks
}

func join(begin []byte, chunks ...[]byte) []byte {
	return bytes.Join(append([][]byte{begin}, chunks...), nil)
}

// Whatever is done to an encrypted body is found, and so is a body in the place
// of another one.
func TestTampering(t *testing.T) {
	keys := ring(t, nil)
	for name, c := range map[string]*Coder{"aes": coder(t, false, keys), "both": coder(t, true, keys)} {
		const size = 4 * ChunkSize
		stored, e := stream(t, c, 7, text(size))
		other, _ := stream(t, c, 8, text(size))
		begin, chunks := split(t, stored, saltSize)
		_, others := split(t, other, saltSize)
		if len(chunks) != 4 {
			t.Fatalf("%d chunks", len(chunks))
		}
		end := func(chunk []byte) []byte { // marked as the last one
			b := bytes.Clone(chunk)
			b[0] |= flagLast >> 24
			return b
		}
		for what, bad := range map[string]struct {
			stored []byte
			size   int64
		}{
			"cut in a chunk":       {stored[:len(stored)-5], size},
			"cut between chunks":   {join(begin, chunks[:3]...), size},
			"cut, and size":        {join(begin, chunks[:3]...), 3 * ChunkSize},
			"cut, size and mark":   {join(begin, chunks[0], chunks[1], end(chunks[2])), 3 * ChunkSize},
			"reordered":            {join(begin, chunks[1], chunks[0], chunks[2], chunks[3]), size},
			"twice":                {join(begin, chunks[0], chunks[0], chunks[2], chunks[3]), size},
			"of another message":   {join(begin, others[0], chunks[1], chunks[2], chunks[3]), size},
			"another message":      {other, size},
			"something behind":     {append(bytes.Clone(stored), 0), size},
			"a chunk behind":       {join(begin, append(chunks[:4:4], chunks[3])...), size},
			"another size":         {stored, size - 1},
			"nothing":              {nil, size},
			"only a salt":          {begin, size},
			"a size without bytes": {stored, 1 << 50},
			"a negative size":      {stored, -1},
		} {
			if b, err := decode(c, bad.stored, e, 7, bad.size); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, %s: %d bytes, %v", name, what, len(b), err)
			}
		}
		for at := 0; at < len(stored); at += 1 + len(stored)/97 {
			bad := bytes.Clone(stored)
			bad[at] ^= 1 << (at % 8)
			if _, err := decode(c, bad, e, 7, size); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, byte %d changed: %v", name, at, err)
			}
		}
	}
}

// A small body is one chunk, which has all the binding.
func TestSwappedSmallBodies(t *testing.T) {
	c := coder(t, true, ring(t, nil))
	stored, e, err := c.Encode(7, text(500))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode(c, stored, e, 8, 500); !errors.Is(err, ErrDamaged) {
		t.Errorf("in the place of another: %v", err)
	}
	again, _, _ := c.Encode(7, text(500))
	if bytes.Equal(stored, again) {
		t.Error("the same body is stored as the same bytes")
	}
}

func TestKeys(t *testing.T) {
	old := ring(t, nil)
	both := ring(t, old)
	stored, e, err := coder(t, true, old).Encode(7, text(500))
	if err != nil {
		t.Fatal(err)
	}
	// The newest key writes, all read, and to read needs nothing else.
	readOnly, err := New(Options{Keys: both})
	if err != nil || !readOnly.Plain() {
		t.Fatal(err)
	}
	for _, c := range []*Coder{coder(t, false, both), readOnly} {
		if b, err := decode(c, stored, e, 7, 500); err != nil || !bytes.Equal(b, text(500)) || !c.HasKey(e.Key()) {
			t.Errorf("by a ring with its key: %v", err)
		}
	}
	if _, newer, _ := coder(t, false, both).Encode(7, text(5)); newer.Key() != both.IDs()[0] {
		t.Errorf("written as %s", newer)
	}
	for _, c := range []*Coder{coder(t, true, nil), coder(t, true, ring(t, nil))} {
		_, err := decode(c, stored, e, 7, 500)
		if missing := (*NoKeyError)(nil); !errors.As(err, &missing) || missing.ID != old.IDs()[0] || errors.Is(err, ErrDamaged) || c.HasKey(e.Key()) {
			t.Errorf("without its key: %v", err)
		}
	}
}

func FuzzReader(f *testing.F) {
	keys := ring(f, nil)
	both, zip := coder(f, true, keys), coder(f, true, nil)
	for _, c := range []*Coder{both, zip} {
		for _, n := range []int{10, 300, 2*ChunkSize + 5} {
			b, e := stream(f, c, 7, text(n))
			f.Add(b, string(e), int64(n))
		}
	}
	f.Fuzz(func(t *testing.T, stored []byte, e string, size int64) {
		b, err := decode(both, stored, Encoding(e), 7, size)
		if e != "" && err == nil && int64(len(b)) != size {
			t.Errorf("%d bytes of %d", len(b), size)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	keys := ring(b, nil)
	for name, c := range map[string]*Coder{"zstd": coder(b, true, nil), "aes": coder(b, false, keys), "both": coder(b, true, keys)} {
		for _, size := range []int{4 << 10, ChunkSize} {
			body := text(size)
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					if _, _, err := c.Encode(7, body); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
