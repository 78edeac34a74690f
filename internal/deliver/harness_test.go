package deliver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

// fakeQueue is a queue.Worker in memory.
type fakeQueue struct {
	jobs    chan queue.Job
	out     chan queue.Result
	bodies  map[queue.MessageID][]byte
	bodyErr func(offset int64) error // nil: none
	doneErr func() error             // nil: none
	takeErr error

	mu       sync.Mutex
	maxPiece int // largest piece asked for
}

func newFakeQueue(jobs ...queue.Job) *fakeQueue {
	q := &fakeQueue{
		jobs:   make(chan queue.Job, 10_000),
		out:    make(chan queue.Result, 10_000),
		bodies: make(map[queue.MessageID][]byte),
	}
	for _, j := range jobs {
		q.jobs <- j
	}
	return q
}

func (q *fakeQueue) Take(ctx context.Context, limit int) ([]queue.Job, error) {
	if q.takeErr != nil {
		return nil, q.takeErr
	}
	var jobs []queue.Job
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case j := <-q.jobs:
		jobs = append(jobs, j)
	}
	for len(jobs) < limit {
		select {
		case j := <-q.jobs:
			jobs = append(jobs, j)
			continue
		default:
		}
		break
	}
	return jobs, nil
}

func (q *fakeQueue) Body(ctx context.Context, id queue.MessageID, offset int64, limit int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	q.maxPiece = max(q.maxPiece, limit)
	q.mu.Unlock()
	if q.bodyErr != nil {
		if err := q.bodyErr(offset); err != nil {
			return nil, err
		}
	}
	b := q.bodies[id]
	if offset >= int64(len(b)) {
		return nil, nil
	}
	return b[offset:min(int64(len(b)), offset+int64(limit))], nil
}

func (q *fakeQueue) Done(_ context.Context, results []queue.Result) error {
	if q.doneErr != nil {
		if err := q.doneErr(); err != nil {
			return err
		}
	}
	for _, r := range results {
		q.out <- r
	}
	return nil
}

// next waits for the next result.
func (q *fakeQueue) next(t *testing.T) queue.Result {
	t.Helper()
	select {
	case r := <-q.out:
		return r
	case <-t.Context().Done():
		t.Fatal("no result")
		return queue.Result{}
	}
}

const testBody = "Subject: hi\r\nX-Spam: no\r\n\r\nhello\r\n.dot\r\nFrom me\r\n"

// testJob is a job for one envelope.
func testJob(n int, how lookup.Delivery, body string) queue.Job {
	if how.UID == 0 {
		how.UID = -1
	}
	if how.User == "" {
		how.User = "bob"
	}
	id := queue.MessageID(1000 + n)
	return queue.Job{
		Message: queue.Message{ID: id, Sender: "alice@a.example", Size: int64(len(body))},
		Body:    []byte(body),
		Envelopes: []queue.Envelope{{
			ID: queue.EnvelopeID{Message: id}, Address: "bob@b.example", Recipient: "all@b.example",
			User: "bob", Action: "local", Created: time.Now(),
		}},
		Delivery: &how,
	}
}

// testAgent is an agent that is used without its loop.
func testAgent(t *testing.T, fsys filesystem) *agent {
	t.Helper()
	opt := Options{Hostname: "mx.example", Timeout: time.Minute, LMTPTimeout: 20 * time.Second}
	a := newAgent(newFakeQueue(), opt.withDefaults(), fsys)
	t.Cleanup(a.lmtp.close)
	return a
}

// try makes one attempt at a job.
func (a *agent) try(t *testing.T, job queue.Job) status {
	t.Helper()
	return a.deliver(t.Context(), newParcel(a.worker, job, job.Envelopes[0]))
}

// wantStatus fails unless st has the outcome, the enhanced code and the text.
func wantStatus(t *testing.T, st status, outcome queue.Outcome, enhanced, text string) {
	t.Helper()
	if st.outcome != outcome || st.enhanced != enhanced || !strings.Contains(st.text, text) {
		t.Fatalf("got outcome %d, %q, %q; want %d, %q, ...%s...", st.outcome, st.enhanced, st.text, outcome, enhanced, text)
	}
	if strings.ContainsAny(st.text, "\r\n") {
		t.Fatalf("text is not one line: %q", st.text)
	}
}

// files lists the regular files below dir, relative to it.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, rel)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

// onlyFile returns the content of the only file in dir.
func onlyFile(t *testing.T, dir string) string {
	t.Helper()
	names := files(t, dir)
	if len(names) != 1 {
		t.Fatalf("%s holds %q; want one file", dir, names)
	}
	b, err := os.ReadFile(filepath.Join(dir, names[0]))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// faultFS is the real file system with a fault and a record of what was done.
type faultFS struct {
	osFS
	fail func(op, path string) error // nil result: go on
	mu   sync.Mutex
	ops  []string
}

// errHalf makes a write end half-way without an error.
var errHalf = errors.New("half a write")

func (f *faultFS) do(op, path string) error {
	f.mu.Lock()
	f.ops = append(f.ops, op+" "+path)
	f.mu.Unlock()
	if f.fail == nil {
		return nil
	}
	return f.fail(op, path)
}

func (f *faultFS) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	if err := f.do("open", name); err != nil {
		return nil, err
	}
	inner, err := f.osFS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultFile{file: inner, fs: f, name: name}, nil
}

func (f *faultFS) Mkdir(name string, perm fs.FileMode) error {
	if err := f.do("mkdir", name); err != nil {
		return err
	}
	return f.osFS.Mkdir(name, perm)
}

func (f *faultFS) Rename(from, to string) error {
	if err := f.do("rename", to); err != nil {
		return err
	}
	return f.osFS.Rename(from, to)
}

func (f *faultFS) Remove(name string) error {
	if err := f.do("remove", name); err != nil {
		return err
	}
	return f.osFS.Remove(name)
}

func (f *faultFS) SyncDir(name string) error {
	if err := f.do("syncdir", name); err != nil {
		return err
	}
	return f.osFS.SyncDir(name)
}

type faultFile struct {
	file
	fs   *faultFS
	name string
}

func (f *faultFile) Write(p []byte) (int, error) {
	switch err := f.fs.do("write", f.name); {
	case err == errHalf:
		return f.file.Write(p[:len(p)/2])
	case err != nil:
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *faultFile) Sync() error {
	if err := f.fs.do("sync", f.name); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *faultFile) Truncate(size int64) error {
	if err := f.fs.do("truncate", f.name); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *faultFile) Close() error {
	err := f.fs.do("close", f.name)
	return errors.Join(f.file.Close(), err)
}
