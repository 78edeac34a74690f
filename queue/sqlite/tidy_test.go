package sqlite

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"tabard/queue"
)

// TestTidy: space goes back after a flood, while what is left stays, and some free
// space stays for the mail to come.
func TestTidy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	s := open(t, path)
	const flood, size, step, keep = 60, 60_000, 64, 128
	var ids []queue.EnvelopeID
	body := bytes.Repeat([]byte("x"), size)
	var changes []*queue.Change
	for i := range flood + 1 {
		c := put(queue.MessageID(i+1), "a")
		c.Insert[0].Body, c.Insert[0].Checksum = body, queue.Checksum(0, body)
		c.Insert[0].Message.Size = size
		changes = append(changes, c)
		ids = append(ids, queue.EnvelopeID{Message: queue.MessageID(i + 1)})
	}
	apply(t, s, changes...)
	if more, err := s.tidy(context.Background(), step, keep); more || err != nil {
		t.Fatalf("a full database is to be tidied: %t, %v", more, err)
	}
	apply(t, s, &queue.Change{Remove: ids[:flood]})
	steps := 1
	for more := true; more; steps++ {
		var err error
		if more, err = s.tidy(context.Background(), step, keep); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if kept := int64(keep * 4096); info.Size() > kept+kept/2 || info.Size() < kept {
		t.Errorf("%d bytes after %d steps, want about %d", info.Size(), steps, kept)
	}
	if steps < 5 {
		t.Errorf("all at once, in %d steps", steps)
	}
	b, err := s.Body(context.Background(), flood+1)
	if err != nil || b.Size() != size {
		t.Errorf("the message that stayed: %v", err)
	}
	if err == nil {
		_ = b.Close()
	}
}
