package deliver

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"tabard/lookup"
	"tabard/queue"
)

// convert runs a body through a lineWriter in pieces of n bytes.
func convert(t testing.TB, body []byte, n int, quote bool) string {
	t.Helper()
	var out bytes.Buffer
	lw := newLineWriter(&out, n, quote)
	for len(body) > 0 {
		k := min(n, len(body))
		if _, err := lw.Write(body[:k]); err != nil {
			t.Fatal(err)
		}
		body = body[k:]
	}
	if err := lw.flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLineWriter(t *testing.T) {
	for _, c := range []struct{ in, plain, quoted string }{
		{"", "", ""},
		{"a\r\nb\r\n", "a\nb\n", "a\nb\n"},
		{"a\r", "a\r", "a\r"},
		{"a\rb\r\r\n", "a\rb\r\n", "a\rb\r\n"},
		{"From x\r\n", "From x\n", ">From x\n"},
		{">From x\r\n>>From y", ">From x\n>>From y", ">>From x\n>>>From y"},
		{"a\r\nFrom", "a\nFrom", "a\nFrom"},
		{"Fro\r\nFrom\r\n> From \r\n", "Fro\nFrom\n> From \n", "Fro\nFrom\n> From \n"},
		{"FFrom x\r\nF\xc3\xa9\r\n", "FFrom x\nF\xc3\xa9\n", "FFrom x\nF\xc3\xa9\n"},
		{"x From y\r\n\r\nFrom z\r\n", "x From y\n\nFrom z\n", "x From y\n\n>From z\n"},
	} {
		for _, n := range []int{1, 2, 3, 1000} {
			if got := convert(t, []byte(c.in), n, false); got != c.plain {
				t.Errorf("%q by %d: %q, want %q", c.in, n, got, c.plain)
			}
			if got := convert(t, []byte(c.in), n, true); got != c.quoted {
				t.Errorf("%q by %d, quoted: %q, want %q", c.in, n, got, c.quoted)
			}
		}
	}
}

func TestLineWriterTellsErrors(t *testing.T) {
	full := errors.New("full")
	lw := newLineWriter(writerFunc(func([]byte) (int, error) { return 0, full }), 0, false)
	if _, err := lw.Write(make([]byte, 2*outBuffer)); !errors.Is(err, full) {
		t.Errorf("write: %v", err)
	}
	lw = newLineWriter(writerFunc(func([]byte) (int, error) { return 0, full }), 0, false)
	if err := errors.Join(lw.raw([]byte("x")), lw.flush()); !errors.Is(err, full) {
		t.Errorf("flush: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func FuzzLineWriter(f *testing.F) {
	f.Add([]byte("a\r\n>From b\r\r\n"), 3)
	f.Add([]byte("\r"), 1)
	quoting := regexp.MustCompile(`(?m)^(>*From )`)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		n = n&0xff + 1
		want := strings.ReplaceAll(string(body), "\r\n", "\n")
		if got := convert(t, body, n, false); got != want {
			t.Errorf("plain: %q, want %q", got, want)
		}
		if got, want := convert(t, body, n, true), quoting.ReplaceAllString(want, ">$1"); got != want {
			t.Errorf("quoted: %q, want %q", got, want)
		}
	})
}

func TestScanHeader(t *testing.T) {
	long := strings.Repeat("y", 10_000)
	for _, c := range []struct {
		name, in   string
		loop, spam bool
	}{
		{"nothing", "", false, false},
		{"no header", "\r\nDelivered-To: bob@b.example\r\n", false, false},
		{"same", "A: b\r\nDELIVERED-TO: Bob@B.example \r\n\r\n", true, false},
		{"other", "Delivered-To: bob@b.example.org\r\n\r\n", false, false},
		{"second", "Delivered-To: x@y.example\r\nDelivered-To: bob@b.example\r\n\r\n", true, false},
		{"folded", "Delivered-To:\r\n\tbob@b.example\r\nA: b\r\n\r\n", true, false},
		{"in a folded field", "A: b\r\n Delivered-To: bob@b.example\r\n\r\n", false, false},
		{"after a long line", "A: " + long + "\r\n " + long + "\r\nX-Spam: yes\r\n\r\n", false, true},
		{"no end", "X-Spam: yes", false, true},
		{"no end, folded", "X-Spam:\r\n yes", false, true},
		{"LF line ends", "X-Spam: yes\nDelivered-To: bob@b.example\n\n", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := scanHeader(iotest.OneByteReader(strings.NewReader(c.in)), "bob@b.example")
			if err != nil || got.loop != c.loop || got.spam != c.spam {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func FuzzScanHeader(f *testing.F) {
	f.Add("Delivered-To: a@b\r\n\r\n", "a@b")
	f.Add("X:\r\n y", "")
	f.Fuzz(func(t *testing.T, in, addr string) {
		if _, err := scanHeader(strings.NewReader(in), addr); err != nil {
			t.Error(err)
		}
	})
}

func TestLoopIsRefused(t *testing.T) {
	dir := t.TempDir()
	job := testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, "Delivered-To: bob@b.example\r\n\r\nx\r\n")
	wantStatus(t, testAgent(t, osFS{}).try(t, job), queue.Failed, "5.4.6", "mail loop")
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

// A body above queue.InlineBody comes in pieces, none larger.
func TestLargeBodyStreams(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef0123456789abcd\r\n"), 20_000)
	job, q := streamedJob(t, body)
	a := newAgent(q, Options{Hostname: "h"}.withDefaults(), osFS{})
	wantStatus(t, a.try(t, job), queue.Delivered, "2.0.0", "")
	want := "Return-Path: <alice@a.example>\nDelivered-To: bob@b.example\n" + strings.ReplaceAll(string(body), "\r\n", "\n")
	if got := onlyFile(t, job.Delivery.Path); got != want {
		t.Errorf("content differs: %d bytes, want %d", len(got), len(want))
	}
	if q.maxPiece != queue.InlineBody {
		t.Errorf("asked for %d bytes", q.maxPiece)
	}
}

func streamedJob(t *testing.T, body []byte) (queue.Job, *fakeQueue) {
	t.Helper()
	job := testJob(1, lookup.Delivery{Method: "maildir", Path: t.TempDir()}, "")
	job.Body, job.Message.Size = nil, int64(len(body))
	q := newFakeQueue()
	q.bodies[job.Message.ID] = body
	return job, q
}

// A body that ends early or cannot be read is never delivered.
func TestBodyTrouble(t *testing.T) {
	body := append([]byte("A: b\r\n\r\n"), bytes.Repeat([]byte("x"), 3*queue.InlineBody)...)
	for name, spoil := range map[string]func(*queue.Job, *fakeQueue){
		"short":      func(j *queue.Job, _ *fakeQueue) { j.Message.Size++ },
		"inline cut": func(j *queue.Job, _ *fakeQueue) { j.Body = body[:10] },
		"error at the start": func(_ *queue.Job, q *fakeQueue) {
			q.bodyErr = func(int64) error { return errors.New("gone") }
		},
		"error on the way": func(_ *queue.Job, q *fakeQueue) {
			q.bodyErr = func(offset int64) error {
				if offset > queue.InlineBody {
					return errors.New("gone")
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			job, q := streamedJob(t, body)
			spoil(&job, q)
			st := newAgent(q, Options{Hostname: "h"}.withDefaults(), osFS{}).try(t, job)
			wantStatus(t, st, queue.Deferred, "4.3.0", "body")
			if left := files(t, job.Delivery.Path); len(left) != 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}

func TestStoppedDeliveryIsReturned(t *testing.T) {
	job, q := streamedJob(t, append([]byte("A: b\r\n\r\n"), make([]byte, 2*queue.InlineBody)...))
	ctx, cancel := context.WithCancel(t.Context())
	q.bodyErr = func(offset int64) error {
		if offset > 0 {
			cancel()
		}
		return nil
	}
	a := newAgent(q, Options{Hostname: "h"}.withDefaults(), osFS{})
	st := a.deliver(ctx, newParcel(q, job, job.Envelopes[0]))
	if st.outcome != queue.Returned || len(files(t, job.Delivery.Path)) != 0 {
		t.Errorf("status %+v, files %q", st, files(t, job.Delivery.Path))
	}
}
