package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

// enqueueText adds a message with a text of its own.
func enqueueText(t *testing.T, q *queue.Queue, text string, rcpts ...string) {
	t.Helper()
	s := queue.Submission{Message: queue.Message{Sender: "a@x.example", EnvID: "e1", Ret: "HDRS", Priority: 3, RequireTLS: true}}
	for _, r := range rcpts {
		s.Recipients = append(s.Recipients, queue.Envelope{Address: r, Recipient: r, ORCPT: "rfc822;" + r, Notify: "NEVER", Action: "out", Relay: true})
	}
	w, err := q.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func listing(t *testing.T, q *queue.Queue) []queue.Listed {
	t.Helper()
	page, err := q.Find(t.Context(), queue.Filter{}, queue.EnvelopeID{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return page.List
}

// exportTo writes an export of all, and returns the file.
func exportTo(t *testing.T, q queue.Admin, f queue.Filter, remove bool) (path, stdout, stderr string, err error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "queue.tar")
	cmd, out := printing()
	var faults strings.Builder
	cmd.SetErr(&faults)
	err = (&globals{}).export(t.Context(), cmd, q, f, path, remove)
	return path, out.String(), faults.String(), err
}

func importBytes(t *testing.T, q queue.Admin, file []byte) (stdout, stderr string, err error) {
	t.Helper()
	cmd, out := printing()
	var faults strings.Builder
	cmd.SetErr(&faults)
	err = (&globals{}).importFile(t.Context(), cmd, q, bytes.NewReader(file))
	return out.String(), faults.String(), err
}

// What is moved is here no more, and there as it was; and there once, however often
// the file is read.
func TestExportImport(t *testing.T) {
	t.Parallel()
	from, to := waiting(t), waiting(t)
	large := strings.Repeat("a line of a large message\r\n", 10_000)
	enqueueText(t, from, "small\r\n", "1@y.example", "2@y.example")
	enqueueText(t, from, large, "3@y.example")
	enqueueText(t, from, "stays\r\n", "4@z.example")
	before := listing(t, from)
	if _, err := from.Steer(t.Context(), queue.Steer{Op: queue.OpHold, Filter: queue.Filter{IDs: []string{before[1].Envelope.ID.String()}}, Limit: 1, Reason: "ask Ann"}); err != nil {
		t.Fatal(err)
	}
	before = listing(t, from)
	path, stdout, stderr, err := exportTo(t, from, queue.Filter{Domain: []string{"y.example"}}, true)
	if err != nil || !strings.HasSuffix(stdout, ": 2 messages with 3 envelopes\n3 envelopes removed\n") || stderr != "" {
		t.Fatalf("export: %s, %s, %v", stdout, stderr, err)
	}
	if left := listing(t, from); len(left) != 1 || left[0].Envelope.Address != "4@z.example" {
		t.Errorf("left: %+v", left)
	}
	if holds, err := from.Holds(t.Context()); err != nil || len(holds) != 0 {
		t.Errorf("holds: %v, %v", holds, err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 messages with 3 envelopes imported, 0 known already\n", "0 messages with 0 envelopes imported, 2 known already\n"} {
		if stdout, stderr, err := importBytes(t, to, file); stdout != want || stderr != "" || err != nil {
			t.Errorf("import: %s, %s, %v", stdout, stderr, err)
		}
	}
	after := listing(t, to)
	if len(after) != 3 {
		t.Fatalf("imported: %+v", after)
	}
	for i := range after {
		got, want := after[i], before[i]
		if late := got.Envelope.Expires.Sub(want.Envelope.Expires); late < 0 || late > time.Minute {
			t.Errorf("%s expires %s later", got.Envelope.ID, late)
		}
		got.Envelope.Expires = want.Envelope.Expires
		if got != want {
			t.Errorf("%+v\nwant %+v", got, want)
		}
	}
	for i, text := range map[int]string{0: "small\r\n", 2: large} {
		var out strings.Builder
		if err := printBody(t.Context(), &out, to, after[i].Envelope.ID.Message, false); err != nil || out.String() != text {
			t.Errorf("body %d: %d bytes, %v", i, out.Len(), err)
		}
		if s, err := to.Show(t.Context(), after[i].Envelope.ID.Message, -1, 0); err != nil || s.Message.EnvID != "e1" || s.Message.Priority != 3 || !s.Message.RequireTLS {
			t.Errorf("%+v, %v", s.Message, err)
		}
	}
	// Delivered, or removed, meanwhile: it does not come back.
	if _, err := to.Steer(t.Context(), queue.Steer{Op: queue.OpRemove, Limit: 500}); err != nil {
		t.Fatal(err)
	}
	if stdout, _, err := importBytes(t, to, file); !strings.HasPrefix(stdout, "0 messages") || err != nil || len(listing(t, to)) != 0 {
		t.Errorf("import of what was delivered: %s, %v", stdout, err)
	}
}

// Of a file that is cut anywhere what is whole is imported.
func TestImportCut(t *testing.T) {
	t.Parallel()
	from := waiting(t)
	enqueueText(t, from, "first\r\n", "1@y.example")
	enqueueText(t, from, "second\r\n", "2@y.example")
	path, _, _, err := exportTo(t, from, queue.Filter{}, false)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second := bytes.Index(file, []byte("second\r\n"))
	for _, tt := range []struct {
		at, whole int
	}{{second + 3, 1}, {second - 100, 1}, {second - 513, 1}, {second + 512, 2}, {bytes.Index(file, []byte("first\r\n")) + 2, 0}, {100, -1}, {700, -1}} {
		to := waiting(t)
		stdout, _, err := importBytes(t, to, file[:tt.at])
		if exitCode(err) != exDataErr || tt.whole >= 0 && (!strings.HasPrefix(stdout, string(rune('0'+tt.whole))+" messages") || !strings.Contains(err.Error(), "the file ends")) {
			t.Errorf("cut at %d: %s, %v", tt.at, stdout, err)
		}
		if n := len(listing(t, to)); n != max(tt.whole, 0) {
			t.Errorf("cut at %d: %d envelopes", tt.at, n)
		}
		if tt.whole == 1 { // and the rest another time
			if stdout, _, err := importBytes(t, to, file); stdout != "1 messages with 1 envelopes imported, 1 known already\n" || err != nil {
				t.Errorf("the whole file: %s, %v", stdout, err)
			}
		}
	}
	// A byte that has changed costs its message alone.
	file[bytes.Index(file, []byte("first\r\n"))] ^= 1
	to := waiting(t)
	stdout, stderr, err := importBytes(t, to, file)
	if exitCode(err) != exDataErr || !strings.HasPrefix(stdout, "1 messages with 1 ") || !strings.Contains(stderr, "checksum") || len(listing(t, to)) != 1 {
		t.Errorf("changed: %s, %s, %v", stdout, stderr, err)
	}
}

// brokenAdmin fails to open the body of the second message.
type brokenAdmin struct {
	queue.Admin
	opened int
}

func (b *brokenAdmin) OpenBody(ctx context.Context, id queue.MessageID) (queue.Body, error) {
	if b.opened++; b.opened > 1 {
		return nil, fmt.Errorf("%w: the server stops", rpc.ErrUnavailable)
	}
	return b.Admin.OpenBody(ctx, id)
}

// An export that fails leaves the queue as it was, and no file.
func TestExportFails(t *testing.T) {
	t.Parallel()
	q := waiting(t, "1@y.example", "2@y.example")
	before := listing(t, q)
	path, _, _, err := exportTo(t, &brokenAdmin{Admin: q}, queue.Filter{}, true)
	if exitCode(err) != exUnavailable {
		t.Errorf("export: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file: %v", err)
	}
	after := listing(t, q)
	for i := range after {
		if after[i] != before[i] {
			t.Errorf("%+v\nwant %+v", after[i], before[i])
		}
	}
	if holds, err := q.Holds(t.Context()); err != nil || len(holds) != 0 {
		t.Errorf("holds: %v, %v", holds, err)
	}
}

// Files that are none of ours, or hostile, are refused, and names are only names.
func TestImportHostile(t *testing.T) {
	t.Parallel()
	q := waiting(t)
	head := `{"format":"tabard queue export","version":1,"export":"e"}`
	for _, tt := range []struct{ name, want string }{
		{"../../etc/x.json\x00{}", "is of another export"},
		{"x.json\x00{", "unexpected end"},
		{"x.json\x00" + `{"export":"e","message":{"id":"ffffffffffffffff"}}`, "bad message id"},
		{"x.json\x00" + `{"export":"e","message":{"id":"7fffffffffffffff"}}`, "message id 7f"},
		{"x.json\x00" + `{"export":"e","message":{"id":"0000000000000001","size":-1}}`, "body of -1"},
		{"x.json\x00" + `{"export":"e","message":{"id":"0000000000000001"}}`, "time 0001"},
		{"x.eml\x00", "not in its place"},
		{"end.json\x00" + `{"messages":7}`, "tells of 7"},
	} {
		var file bytes.Buffer
		w := tar.NewWriter(&file)
		name, text, _ := strings.Cut(tt.name, "\x00")
		for _, m := range [][2]string{{"export.json", head}, {name, text}, {"y.eml", ""}} {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m[0], Size: int64(len(m[1]))}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, m[1]); err != nil {
				t.Fatal(err)
			}
		}
		stdout, stderr, err := importBytes(t, q, file.Bytes())
		if exitCode(err) != exDataErr || !strings.Contains(stderr+err.Error(), tt.want) {
			t.Errorf("%s: %s, %s, %v", tt.name, stdout, stderr, err)
		}
	}
	if _, _, err := importBytes(t, q, []byte(strings.Repeat("no tar", 200))); exitCode(err) != exDataErr {
		t.Errorf("no tar: %v", err)
	}
}

func TestSortedListing(t *testing.T) {
	t.Parallel()
	q := waiting(t, "2@y.example", "1@y.example", "3@z.example")
	for _, tt := range []struct {
		sort  string
		limit int
		want  string
	}{{"recipient", 0, "1 2 3"}, {"-recipient", 2, "3 2"}, {"recipient", 3, "1 2 3"}} {
		o, err := parseOrder(tt.sort)
		if err != nil {
			t.Fatal(err)
		}
		cmd, out := printing()
		if err := (&globals{}).printSorted(t.Context(), cmd, q, queue.Filter{}, o, tt.limit); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			if _, to, ok := strings.Cut(line, "  <"); ok {
				_, to, _ = strings.Cut(to, "  <")
				got = append(got, to[:1])
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %s", tt.sort, out)
		}
	}
	if _, err := parseOrder("weight"); exitCode(err) != exUsage {
		t.Errorf("bad key: %v", err)
	}
}
