package logging

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

// gated is a writer that waits until it may write, and notes each call.
type gated struct {
	may   chan struct{}
	mu    sync.Mutex
	calls []string
}

func (g *gated) Write(p []byte) (int, error) {
	<-g.may
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, string(p))
	return len(p), nil
}

func (g *gated) written() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.calls...)
}

func TestBatchGathers(t *testing.T) {
	g := &gated{may: make(chan struct{})}
	b := NewBatch(g)
	var want strings.Builder
	line := func(n int) {
		s := fmt.Sprintf("%03d %s\n", n, strings.Repeat("x", 95))
		want.WriteString(s)
		if _, err := io.WriteString(b, s); err != nil {
			t.Fatal(err)
		}
	}
	line(0)
	g.may <- struct{}{} // the first, alone, is being written: the others wait together
	for n := 1; n <= 200; n++ {
		line(n)
	}
	close(g.may)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	line(201) // after the end: at once
	calls := g.written()
	if got := strings.Join(calls, ""); got != want.String() {
		t.Fatalf("written:\n%s", got)
	}
	if len(calls) > 10 {
		t.Errorf("%d calls for 202 lines of 100 bytes", len(calls))
	}
	for _, c := range calls {
		if len(c) > pieceSize || !strings.HasSuffix(c, "\n") {
			t.Errorf("a call of %d bytes, which ends with %q", len(c), c[len(c)-1:])
		}
	}
}

func TestBatchLongLine(t *testing.T) {
	var out bytes.Buffer
	b := NewBatch(&out)
	long := strings.Repeat("y", 3*pieceSize) + "\n"
	if _, err := io.WriteString(b, "a\n"+long+"b\n"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if out.String() != "a\n"+long+"b\n" {
		t.Errorf("%d bytes", out.Len())
	}
}

// Whoever logs a warning can rely on its line, and on those before it.
func TestWarningIsWrittenAtOnce(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		g := &gated{may: make(chan struct{}, 100)}
		for range 100 {
			g.may <- struct{}{}
		}
		b := NewBatch(g)
		log, err := New(b, "smtpd", Options{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		log = log.With("a", 1).WithGroup("g")
		for n := range 20 {
			log.Info("first", "n", n)
			log.Warn("second", "n", n)
			if got := strings.Join(g.written(), ""); strings.Count(got, "second") != n+1 || strings.Count(got, "first") != n+1 {
				t.Fatalf("%s: after %d warnings:\n%s", format, n+1, got)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
