package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/internal/bodycode"
	"tabard/internal/sealing"
	"tabard/queue"
)

func coder(t testing.TB, o bodycode.Options) *bodycode.Coder {
	t.Helper()
	c, err := bodycode.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// keys returns a ring, and one with a newer key in front.
func keys(t testing.TB) (old, both *sealing.Ring) {
	t.Helper()
	old, err := old.WithNewKey()
	if err == nil {
		both, err = old.WithNewKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return old, both
}

func coders(t testing.TB) map[string]*bodycode.Coder {
	t.Helper()
	old, _ := keys(t)
	return map[string]*bodycode.Coder{
		"none": coder(t, bodycode.Options{}),
		"zstd": coder(t, bodycode.Options{Compress: true}),
		"aes":  coder(t, bodycode.Options{Encrypt: true, Keys: old}),
		"both": coder(t, bodycode.Options{Compress: true, Encrypt: true, Keys: old}),
	}
}

// text is a body of n bytes that shrinks.
func text(id queue.MessageID, n int) []byte {
	return []byte(strings.Repeat("line of "+id.String()+"\r\n", n/20+1))[:n]
}

// keepBody stores a body, in a file when it is large.
func keepBody(t testing.TB, s *Store, id queue.MessageID, body []byte) {
	t.Helper()
	c := put(id, "a")
	m := &c.Insert[0]
	m.Body, m.Message.Size, m.Checksum = body, int64(len(body)), queue.Checksum(0, body)
	if len(body) > queue.ColumnBody {
		st, err := s.Stage()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(st, halves(body)); err != nil {
			t.Fatal(err)
		}
		if err := st.Keep(id); err != nil {
			t.Fatal(err)
		}
		m.Body, m.Staged, m.Encoding = nil, true, st.Encoding()
	}
	if err := s.Encode(m); err != nil {
		t.Fatal(err)
	}
	apply(t, s, c)
}

// halves reads in pieces that are no chunks.
func halves(b []byte) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:len(b)/2+7]), bytes.NewReader(b[len(b)/2+7:]))
}

func readBody(s *Store, id queue.MessageID) ([]byte, error) {
	b, err := s.Body(context.Background(), id)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
}

func sizes() []int {
	return []int{0, 1, 3000, queue.ColumnBody, queue.ColumnBody + 1, 3 * queue.ColumnBody, 3*queue.ColumnBody + 7}
}

func TestEncodedBodies(t *testing.T) {
	t.Parallel()
	for name, c := range coders(t) {
		path := filepath.Join(t.TempDir(), "queue.db")
		s := open(t, path)
		s.SetCoder(c)
		for i, n := range sizes() {
			keepBody(t, s, queue.MessageID(i+1), text(queue.MessageID(i+1), n))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, path)
		s.SetCoder(c)
		for i, n := range sizes() {
			id := queue.MessageID(i + 1)
			want := text(id, n)
			if got, err := readBody(s, id); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %d bytes: %d, %v", name, n, len(got), err)
			}
			b, err := s.Body(context.Background(), id)
			if err != nil {
				continue
			}
			if p := make([]byte, 100); n > 70_000 {
				if _, err := b.ReadAt(p, 65_500); err != nil || !bytes.Equal(p, want[65_500:65_600]) {
					t.Errorf("%s, %d bytes, in the middle: %v", name, n, err)
				}
			}
			b.Close()
		}
		stored := dump(t, path)
		if clear := bytes.Contains(stored, text(3, 60)); clear != (name == "none") {
			t.Errorf("%s: clear text in the files: %v", name, clear)
		}
	}
}

// dump is all that is in the spool.
func dump(t *testing.T, path string) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(filepath.Dir(path), func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		all = append(all, b...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Bodies that were changed on the disk, or swapped, are corrupt; without its key
// one is not.
func TestDamagedEncodedBodies(t *testing.T) {
	t.Parallel()
	old, both := keys(t)
	for name, o := range map[string]bodycode.Options{
		"zstd": {Compress: true}, "aes": {Encrypt: true, Keys: old}, "both": {Compress: true, Encrypt: true, Keys: old},
	} {
		path := filepath.Join(t.TempDir(), "queue.db")
		s := open(t, path)
		s.SetCoder(coder(t, o))
		for id := queue.MessageID(1); id < 5; id++ {
			keepBody(t, s, id, text(id, 3000+int(id/3)*200_000))
		}
		without, err := both.WithNewKey()
		if err != nil {
			t.Fatal(err)
		}
		s.SetCoder(coder(t, bodycode.Options{Keys: without.Only(func(string) bool { return false })}))
		for id := queue.MessageID(1); id < 5; id++ {
			_, err := readBody(s, id)
			if missing := (*bodycode.NoKeyError)(nil); o.Encrypt && (!errors.As(err, &missing) || missing.ID != old.IDs()[0] || errors.Is(err, queue.ErrCorrupt)) {
				t.Errorf("%s without its key: %v", name, err)
			}
		}
		s.SetCoder(coder(t, bodycode.Options{Keys: both}))
		exec := func(query string, args ...any) {
			t.Helper()
			if _, err := s.stmts.conn.ExecContext(context.Background(), query, args...); err != nil {
				t.Fatal(err)
			}
		}
		var b1 []byte
		if err := s.stmts.conn.QueryRowContext(context.Background(), "SELECT body FROM messages WHERE id = 1").Scan(&b1); err != nil {
			t.Fatal(err)
		}
		exec("UPDATE messages SET body = (SELECT body FROM messages WHERE id = 1) WHERE id = 2")
		b1[len(b1)-20] ^= 4
		exec("UPDATE messages SET body = ? WHERE id = 1", b1)
		files := filepath.Join(filepath.Dir(path), "messages")
		three, four := filepath.Join(files, queue.MessageID(3).String()), filepath.Join(files, queue.MessageID(4).String())
		b4, err := os.ReadFile(four)
		if err == nil {
			err = os.WriteFile(three, b4, 0o600)
		}
		if err == nil {
			b4[len(b4)/2] ^= 1
			err = os.WriteFile(four, b4, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		for id := queue.MessageID(1); id < 5; id++ {
			if b, err := readBody(s, id); !errors.Is(err, queue.ErrCorrupt) {
				t.Errorf("%s, body %d: %d bytes, %v", name, id, len(b), err)
			}
		}
	}
}

func encodings(t testing.TB, s *Store) string {
	t.Helper()
	counts, err := s.Encodings(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := s.count(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		plain -= c.Messages
	}
	if plain > 0 {
		counts = append(counts, queue.EncodingCount{Messages: plain})
	}
	var words []string
	for _, c := range counts {
		words = append(words, fmt.Sprintf("%s=%d", c.Encoding, c.Messages))
	}
	return strings.Join(words, " ")
}

// Every form becomes every other, files included, and whoever reads meanwhile
// reads on.
func TestRecode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	s := open(t, path)
	for i, n := range sizes() {
		keepBody(t, s, queue.MessageID(i+1), text(queue.MessageID(i+1), n))
	}
	reading, err := s.Body(context.Background(), 6)
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	old, both := keys(t)
	from := bodycode.Encoding("")
	for _, o := range []bodycode.Options{
		{Encrypt: true, Keys: old}, {Encrypt: true, Keys: both}, {Compress: true, Encrypt: true, Keys: both}, {Keys: both},
	} {
		c := coder(t, o)
		s.SetCoder(c)
		for after := queue.MessageID(0); ; {
			batch, err := s.Recode(context.Background(), from, after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(batch) == 0 {
				break
			}
			change := &queue.Change{Recode: batch}
			if apply(t, s, change); change.Affected != len(batch) {
				t.Errorf("%d of %d stored anew", change.Affected, len(batch))
			}
			after = batch[len(batch)-1].ID
		}
		from = c.Encoding()
		if got, want := encodings(t, s), fmt.Sprintf("%s=%d", from, len(sizes())); got != want {
			t.Errorf("stored as %s, want %s", got, want)
		}
		for i, n := range sizes() {
			if got, err := readBody(s, queue.MessageID(i+1)); err != nil || !bytes.Equal(got, text(queue.MessageID(i+1), n)) {
				t.Errorf("%s, %d bytes: %d, %v", from, n, len(got), err)
			}
		}
		if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "messages", "0*")); len(names) != 3 {
			t.Errorf("%s: files %v", from, names)
		}
	}
	if b, err := io.ReadAll(io.NewSectionReader(reading, 0, reading.Size())); err != nil || !bytes.Equal(b, text(6, sizes()[5])) {
		t.Errorf("who was reading: %d bytes, %v", len(b), err)
	}
}

// Between any two steps of storing a body anew the process may end: the next one
// has each body once.
func TestRecodeIsInterrupted(t *testing.T) {
	t.Parallel()
	old, both := keys(t)
	path := filepath.Join(t.TempDir(), "queue.db")
	s := open(t, path)
	s.SetCoder(coder(t, bodycode.Options{Encrypt: true, Keys: old}))
	const size = 2 * queue.ColumnBody
	for id := queue.MessageID(1); id < 4; id++ {
		keepBody(t, s, id, text(id, size))
	}
	files := filepath.Join(filepath.Dir(path), "messages")
	was, err := os.ReadFile(filepath.Join(files, queue.MessageID(1).String()))
	if err != nil {
		t.Fatal(err)
	}
	c := coder(t, bodycode.Options{Encrypt: true, Keys: both})
	s.SetCoder(c)
	batch, err := s.Recode(context.Background(), bodycode.Encoding("aes-256-gcm:"+old.IDs()[0]), 0, 3)
	if err != nil || len(batch) != 3 {
		t.Fatal(batch, err)
	}
	// One is durable, but its old file is still there; one is not; one was removed
	// meanwhile.
	apply(t, s, &queue.Change{Recode: batch[:1]}, &queue.Change{Remove: []queue.EnvelopeID{{Message: 3}}})
	if err := os.WriteFile(filepath.Join(files, queue.MessageID(1).String()), was, 0o600); err != nil {
		t.Fatal(err)
	}
	late := &queue.Change{Recode: batch[2:]}
	if apply(t, s, late); late.Affected != 0 {
		t.Error("a message that was removed is back")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	s.SetCoder(c)
	for id := queue.MessageID(1); id < 3; id++ {
		if got, err := readBody(s, id); err != nil || !bytes.Equal(got, text(id, size)) {
			t.Errorf("body %d: %d bytes, %v", id, len(got), err)
		}
	}
	entries, _ := filepath.Glob(filepath.Join(files, "*"))
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Base(e))
	}
	if got := strings.Join(names, " "); got != ".lock 0000000000000001.1 0000000000000002" {
		t.Errorf("files: %s", got)
	}
	// What was left undone is done from the beginning.
	batch, err = s.Recode(context.Background(), bodycode.Encoding("aes-256-gcm:"+old.IDs()[0]), 0, 3)
	if err != nil || len(batch) != 1 {
		t.Fatal(batch, err)
	}
	if apply(t, s, &queue.Change{Recode: batch}); encodings(t, s) != "aes-256-gcm:"+both.IDs()[0]+"=2" {
		t.Errorf("stored as %s", encodings(t, s))
	}
}
