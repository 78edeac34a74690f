package queue_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

func TestLifeCycle(t *testing.T) {
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	w := r.relayer()
	j := takeOne(t, w)
	if string(j.Body) != text || addresses(j) != "b@y.example" || j.Domain != "y.example" || j.Message.Sender != "a@x.example" {
		t.Fatalf("job: %+v", j)
	}
	if l := r.list(); len(l) != 1 || !l[0].InFlight || l[0].Sender != "a@x.example" || l[0].Size != int64(len(text)) {
		t.Errorf("list: %+v", l)
	}
	done(t, w, j, queue.Result{Outcome: queue.Delivered, Code: 250, Text: "2.0.0 ok"})
	if l := r.list(); len(l) != 0 {
		t.Errorf("still there: %+v", l)
	}
	if s := r.stats(); s.Messages != 0 || s.Envelopes != 0 || s.Delivered != 1 || s.Enqueued != 1 || s.InFlight != 0 {
		t.Errorf("stats: %+v", s)
	}
	for _, want := range []string{`msg="mta delivery"`, "session=5e55", "from=<a@x.example>", "to=<b@y.example>", "rcpt=<->", "result=Ok"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("log lacks %s: %s", want, r.log)
		}
	}
}

func TestSurvivesReopening(t *testing.T) {
	r := start(t, queue.Options{})
	body := strings.Repeat("x", queue.InlineBody)
	r.enqueue(message("a@x.example", "b@y.example", "c@y.example", "d@z.example"), body)
	takeOne(t, r.relayer()) // leased when it ends
	r = r.reopen(queue.Options{})
	if s := r.stats(); s.Messages != 1 || s.Envelopes != 3 {
		t.Fatalf("stats: %+v", s)
	}
	w := r.relayer()
	seen := map[string]bool{}
	for range 2 {
		j := takeOne(t, w)
		if string(j.Body) != body {
			t.Errorf("body has %d bytes", len(j.Body))
		}
		seen[addresses(j)] = true
	}
	if !seen["b@y.example c@y.example"] || !seen["d@z.example"] {
		t.Errorf("jobs: %v", seen)
	}
}

// stream writes a body of n bytes through Create.
func stream(t testing.TB, c queue.Client, s queue.Submission, n int) error {
	t.Helper()
	w, err := c.Create(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("0123456789abcde\n"), 2048)
	for ; n > 0; n -= len(chunk) {
		if _, err := w.Write(chunk[:min(n, len(chunk))]); err != nil {
			w.Abort()
			return err
		}
	}
	return w.Commit(context.Background(), s)
}

// readBody reads the body of a job, and returns its size and checksum.
func readBody(t testing.TB, w queue.Worker, j queue.Job) (size int64, sum uint32) {
	t.Helper()
	if j.Body != nil {
		return int64(len(j.Body)), queue.Checksum(0, j.Body)
	}
	for {
		p, err := w.Body(context.Background(), j.Message.ID, size, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		if len(p) == 0 {
			return size, sum
		}
		size += int64(len(p))
		sum = queue.Checksum(sum, p)
	}
}

// wantSum is the checksum of what stream writes.
func wantSum(n int) (sum uint32) {
	chunk := bytes.Repeat([]byte("0123456789abcde\n"), 2048)
	for ; n > 0; n -= len(chunk) {
		sum = queue.Checksum(sum, chunk[:min(n, len(chunk))])
	}
	return sum
}

func TestLargeBodies(t *testing.T) {
	r := start(t, queue.Options{})
	sizes := []int{0, 1, queue.InlineBody, queue.InlineBody + 1, queue.ColumnBody, queue.ColumnBody + 1, 3<<20 + 7}
	for _, n := range sizes {
		if err := stream(t, r, message("a@x.example", "b@y.example"), n); err != nil {
			t.Fatal(err)
		}
	}
	w := r.relayer()
	for range sizes {
		j := takeOne(t, w)
		n := int(j.Message.Size)
		if size, sum := readBody(t, w, j); size != int64(n) || sum != wantSum(n) {
			t.Errorf("%d bytes: read %d, sum %x", n, size, sum)
		}
		if j.Body == nil && n <= queue.InlineBody || j.Body != nil && n > queue.InlineBody {
			t.Errorf("%d bytes: inline %v", n, j.Body != nil)
		}
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
	}
	if names := bodyFiles(t, r.path); len(names) != 0 {
		t.Errorf("files left: %v", names)
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	r := start(t, queue.Options{})
	w, err := r.Create(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if len(bodyFiles(t, r.path)) != 1 {
		t.Fatal("nothing staged: the test shows nothing")
	}
	w.Abort()
	if names := bodyFiles(t, r.path); len(names) != 0 {
		t.Errorf("files left: %v", names)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("written after Abort")
	}
	if err := w.Commit(context.Background(), message("", "b@y.example")); err == nil {
		t.Error("committed after Abort")
	}
}

func TestRefusedSubmissions(t *testing.T) {
	r := start(t, queue.Options{})
	for name, change := range map[string]func(*queue.Submission){
		"no recipients":   func(s *queue.Submission) { s.Recipients = nil },
		"too many":        func(s *queue.Submission) { s.Recipients = make([]queue.Envelope, queue.MaxRecipients+1) },
		"line in sender":  func(s *queue.Submission) { s.Message.Sender = "a@x\r\nX: y" },
		"long sender":     func(s *queue.Submission) { s.Message.Sender = strings.Repeat("a", 600) },
		"empty recipient": func(s *queue.Submission) { s.Recipients[0].Address = "" },
		"NUL":             func(s *queue.Submission) { s.Recipients[0].Recipient = "a\x00b" },
		"not UTF-8":       func(s *queue.Submission) { s.Recipients[0].ORCPT = "rfc822;\xff" },
		"notify":          func(s *queue.Submission) { s.Recipients[0].Notify = "NEVER,SUCCESS" },
		"notify twice":    func(s *queue.Submission) { s.Recipients[0].Notify = "DELAY,DELAY" },
		"ret":             func(s *queue.Submission) { s.Message.Ret = "SOME" },
		"envid":           func(s *queue.Submission) { s.Message.EnvID = strings.Repeat("e", 101) },
		"id":              func(s *queue.Submission) { s.Message.ID = -1 },
	} {
		s := message("a@x.example", "b@y.example")
		change(&s)
		if err := r.Enqueue(context.Background(), s, nil); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Enqueue(context.Background(), message("", "b@y.example"), make([]byte, queue.InlineBody+1)); !errors.Is(err, rpc.ErrTooLarge) {
		t.Errorf("large body: %v", err)
	}
	if s := r.stats(); s.Messages != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestTakenIDIsRefusedAlone(t *testing.T) {
	r := start(t, queue.Options{})
	s := message("a@x.example", "b@y.example")
	var ids queue.IDSource
	s.Message.ID = ids.Next()
	r.enqueue(s, text)
	if err := r.Enqueue(context.Background(), s, []byte("other")); !errors.Is(err, queue.ErrConflict) {
		t.Errorf("second message of the same id: %v", err)
	}
	if j := takeOne(t, r.relayer()); string(j.Body) != text {
		t.Errorf("body: %q", j.Body)
	}
}

func TestIDsAreUnique(t *testing.T) {
	var ids queue.IDSource
	last := queue.MessageID(0)
	for range 100_000 {
		id := ids.Next()
		if id <= last {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
	if got, n, err := queue.ParseID(queue.EnvelopeID{Message: last, N: 3}.String()); got != last || n != 3 || err != nil {
		t.Errorf("ParseID: %s, %d, %v", got, n, err)
	}
}

func TestCallsEndWithTheQueue(t *testing.T) {
	r := start(t, queue.Options{})
	w := r.relayer()
	ended := make(chan error, 1)
	go func() {
		_, err := w.Take(context.Background(), 1)
		ended <- err
	}()
	r.stop()
	if err := <-ended; !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Take: %v", err)
	}
	if err := r.Enqueue(context.Background(), message("", "b@y.example"), nil); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Enqueue: %v", err)
	}
	if _, err := r.Create(context.Background()); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Create: %v", err)
	}
}

func TestTakeEndsWithItsContext(t *testing.T) {
	r := start(t, queue.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := r.relayer().Take(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Take: %v", err)
	}
}
