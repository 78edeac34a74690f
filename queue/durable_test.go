package queue_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/queue"
	"tabard/queue/sqlite"
)

const (
	// loadVar makes the test binary a process that enqueues without end, and keysVar
	// one that encrypts and compresses bodies meanwhile, under one key and the next.
	loadVar = "TABARD_QUEUE_TEST_LOAD"
	keysVar = "TABARD_QUEUE_TEST_KEYS"
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(loadVar) != "":
		err = load(os.Getenv(loadVar))
	case os.Getenv(fullVar) != "":
		err = fill(os.Getenv(fullVar))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// load enqueues, small and large, delivers every other message, and prints what
// happens: "+ id" accepted, "! id" delivered, "- id" delivered and recorded.
func load(path string) error {
	ctx := context.Background()
	store, err := sqlite.Open(ctx, path)
	if err != nil {
		return err
	}
	q, err := queue.New(ctx, store, &local{}, queue.Options{})
	if err != nil {
		return err
	}
	if keys := os.Getenv(keysVar); keys != "" {
		if err := startRotation(ctx, q, keys); err != nil {
			return err
		}
	}
	go q.Run(ctx)
	var mu sync.Mutex
	say := func(sign string, id queue.MessageID) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(sign, id)
	}
	var ids queue.IDSource
	for i := range 20 {
		go func() {
			for {
				id := ids.Next()
				if err := submit(q, id, i == 0); err == nil {
					say("+", id)
				}
			}
		}()
	}
	w, _ := q.RelayWorker()
	for {
		jobs, err := w.Take(ctx, 10)
		if err != nil {
			return err
		}
		for i, j := range jobs {
			if i%2 == 1 {
				continue // stays with the worker
			}
			say("!", j.Message.ID)
			if err := w.Done(ctx, results(j, queue.Result{Outcome: queue.Delivered})); err == nil {
				say("-", j.Message.ID)
			}
		}
	}
}

// submit enqueues a message whose body follows from its id.
func submit(q queue.Client, id queue.MessageID, large bool) error {
	s := message("a@x.example", fmt.Sprintf("u@d%d.example", id%50))
	s.Message.ID = id
	if !large {
		return q.Enqueue(context.Background(), s, bodyFor(id, false))
	}
	w, err := q.Create(context.Background())
	if err != nil {
		return err
	}
	if _, err := w.Write(bodyFor(id, true)); err != nil {
		w.Abort()
		return err
	}
	return w.Commit(context.Background(), s)
}

func bodyFor(id queue.MessageID, large bool) []byte {
	n := 100
	if large {
		n = 9000
	}
	return []byte(strings.Repeat(id.String()+"\r\n", n))
}

// Killed at any moment, under load: every message that was acknowledged, and
// not delivered, is there, and whole.
func TestKill(t *testing.T) { testKill(t, 4, "", queue.Options{}) }

func testKill(t *testing.T, rounds int, keys string, o queue.Options) {
	path := filepath.Join(t.TempDir(), "queue.db")
	seen := map[string]map[string]bool{"+": {}, "!": {}, "-": {}}
	for round := range rounds {
		killUnderLoad(t, path, keys, 100+100*round, seen)
	}
	accepted, delivered, recorded := seen["+"], seen["!"], seen["-"]
	r := open(t, path, o, &local{})
	present := map[string]bool{}
	for after := (queue.EnvelopeID{}); ; {
		page, err := r.Find(t.Context(), queue.Filter{}, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.List) == 0 {
			break
		}
		for _, l := range page.List {
			present[l.Envelope.ID.Message.String()] = true
			after = l.Envelope.ID
		}
	}
	for id := range accepted {
		if !present[id] && !delivered[id] {
			t.Errorf("%s was acknowledged, and is lost", id)
		}
	}
	for id := range recorded {
		if present[id] {
			t.Errorf("%s was recorded as delivered, and is there", id)
		}
	}
	t.Logf("accepted %d, delivered %d, recorded %d, present %d", len(accepted), len(delivered), len(recorded), len(present))
	w := r.relayer()
	large := 0
	for range present {
		j := takeOne(t, w)
		want := bodyFor(j.Message.ID, j.Body == nil)
		if size, sum := readBody(t, w, j); size != int64(len(want)) || sum != queue.Checksum(0, want) {
			t.Errorf("%s: body of %d bytes is not what was accepted", j.Message.ID, size)
		}
		if j.Body == nil {
			large++
		}
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
	}
	if large == 0 {
		t.Error("no large message: the test shows too little")
	}
	if names := bodyFiles(t, path); len(names) != 0 {
		t.Errorf("bodies left: %v", names)
	}
}

// killUnderLoad kills a loaded process after n messages were acknowledged.
func killUnderLoad(t *testing.T, path, keys string, n int, seen map[string]map[string]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), loadVar+"="+path, keysVar+"="+keys)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); {
		sign, id, ok := strings.Cut(lines.Text(), " ")
		if !ok || len(id) != 16 {
			continue // torn by the kill
		}
		seen[sign][id] = true
		if sign != "+" {
			continue
		}
		if i++; i == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the loaded process ended by itself")
	}
}

// A body that is not what was stored is held, loudly, and neither delivered nor
// dropped.
func TestDamagedBody(t *testing.T) {
	r := start(t, queue.Options{})
	if err := stream(t, r, message("a@x.example", "b@y.example", "c@z.example"), 1<<20); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(r.path), "messages", bodyFiles(t, r.path)[0])
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("X"), 500_000); err != nil {
		t.Fatal(err)
	}
	w := r.relayer()
	end := takesNothing(t, w)
	held := func() bool {
		l := r.list()
		return len(l) == 2 && l[0].Envelope.Held && l[1].Envelope.Held && !l[0].InFlight
	}
	eventually(t, "hold", held)
	if !strings.Contains(r.log.String(), "level=ERROR") || !strings.Contains(r.log.String(), "damaged") {
		t.Errorf("log: %s", r.log)
	}
	end()
	// Held still after a restart; repaired and retried by hand it goes on.
	r = r.reopen(queue.Options{})
	if !held() {
		t.Errorf("after reopening: %+v", r.list())
	}
	if _, err := f.WriteAt([]byte{"0123456789abcde\n"[500_000%16]}, 500_000); err != nil {
		t.Fatal(err)
	}
	r.retry(0, -1, retried{Due: 2})
	w = r.relayer()
	j := takeOne(t, w)
	if size, sum := readBody(t, w, j); size != 1<<20 || sum != wantSum(1<<20) {
		t.Errorf("body of %d bytes", size)
	}
}

func TestLostBodyFile(t *testing.T) {
	r := start(t, queue.Options{})
	if err := stream(t, r, message("a@x.example", "b@y.example"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(r.path), "messages", bodyFiles(t, r.path)[0])); err != nil {
		t.Fatal(err)
	}
	w := r.relayer()
	go w.Take(t.Context(), 1)
	eventually(t, "hold", func() bool { return r.list()[0].Envelope.Held })
}

// Eight bodies of 50 MiB are written and read at once within little memory.
func TestStreamsAreBounded(t *testing.T) {
	r := start(t, queue.Options{})
	c, _, _ := r.client(t)
	const streams, size = 8, 16 << 20
	most := watchHeap(t)
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			if err := stream(t, c, message("a@x.example", "b@y.example"), size); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w, _, _ := r.remoteRelay(t)
	for _, j := range take(t, w, streams) {
		wg.Go(func() {
			if n, sum := readBody(t, w, j); n != size || sum != wantSum(size) {
				t.Errorf("read %d bytes", n)
			}
		})
	}
	wg.Wait()
	if n := most(); n > 64<<20 {
		t.Errorf("%d MiB of heap", n>>20)
	}
}

// watchHeap returns what says how much the heap grew at most meanwhile.
func watchHeap(t *testing.T) (most func() uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	base, peak := m.HeapInuse, uint64(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-stopped
		return max(peak, base) - base
	}
}

func TestOneProcessOnly(t *testing.T) {
	r := start(t, queue.Options{})
	if _, err := sqlite.Open(t.Context(), r.path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second Open: %v", err)
	}
}

func TestDamagedDatabase(t *testing.T) {
	r := start(t, queue.Options{})
	for range 200 {
		r.enqueue(message("a@x.example", "b@y.example"), strings.Repeat("x", 3000))
	}
	r.stop()
	good, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"no database": func([]byte) []byte { return []byte(strings.Repeat("this is a text\n", 1000)) },
		"header":      func(b []byte) []byte { copy(b, "XXXXXXXXXXXXXXXX"); return b },
		"middle": func(b []byte) []byte {
			copy(b[4096:], strings.Repeat("\xff", 10*4096))
			return b
		},
		"cut": func(b []byte) []byte { return b[:len(b)/2] },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "queue.db")
			bad := spoil(append([]byte{}, good...))
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := sqlite.Open(t.Context(), path)
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, queue.ErrCorrupt) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: %v", err)
			}
			if now, err := os.ReadFile(path); err != nil || len(now) != len(bad) {
				t.Errorf("the file was changed: %d bytes, had %d, %v", len(now), len(bad), err)
			}
		})
	}
}

// bodyFiles lists the bodies beside a database.
func bodyFiles(t testing.TB, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(path), "messages"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != ".lock" {
			names = append(names, e.Name())
		}
	}
	return names
}
