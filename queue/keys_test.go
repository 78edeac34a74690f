package queue_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/bodycode"
	"tabard/internal/sealing"
	"tabard/queue"
)

// keyText is a file of keys, each made of one byte, the first one to write with.
func keyText(keys ...byte) string {
	var lines []string
	for _, k := range keys {
		lines = append(lines, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{k}, 32)))
	}
	return strings.Join(lines, "\n")
}

func newCoder(text string, compress, readOnly bool) (*bodycode.Coder, error) {
	o := bodycode.Options{Compress: compress}
	if text != "" {
		ring, err := sealing.ParseRing([]byte(text))
		if err != nil {
			return nil, err
		}
		o.Keys, o.Encrypt = ring, !readOnly
	}
	return bodycode.New(o)
}

// coder encrypts under the first key; there may be none.
func coder(t testing.TB, compress bool, keys ...byte) *bodycode.Coder {
	t.Helper()
	c, err := newCoder(keyText(keys...), compress, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// recode stores all bodies anew that need it.
func recode(ctx context.Context, q queue.BodyAdmin, all bool) (stored, faults int, err error) {
	for r := (queue.RecodeRequest{All: all}); ; {
		got, err := q.Recode(ctx, r)
		stored, faults = stored+got.Done, faults+got.Failed
		if err != nil || got.End {
			return stored, faults, err
		}
		r.From, r.After = got.From, got.After
	}
}

// startRotation has bodies stored under one key and the other in turn, without end.
func startRotation(ctx context.Context, q *queue.Queue, keys string) error {
	a, b, _ := strings.Cut(keys, "\n")
	var coders []*bodycode.Coder
	for _, text := range []string{a + "\n" + b, b + "\n" + a} {
		c, err := newCoder(text, true, false)
		if err != nil {
			return err
		}
		coders = append(coders, c)
	}
	q.SetCoder(coders[0])
	go func() {
		for i := 1; ; i++ {
			q.SetCoder(coders[i%2])
			if _, failed, err := recode(ctx, q, false); failed > 0 || err != nil {
				fmt.Fprintln(os.Stderr, "stored anew:", failed, err)
				os.Exit(1)
			}
		}
	}()
	return nil
}

// Killed at any moment under load, while all bodies are stored anew again and
// again: nothing that was acknowledged is lost, or is not what it was.
func TestKillWhileKeysRotate(t *testing.T) {
	t.Parallel()
	testKill(t, 3, keyText(1, 2), queue.Options{Coder: coder(t, true, 2, 1)})
}

// What is stored in one way stays readable in every other, and a reload is about
// new mail only.
func TestCodersComeAndGo(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	coders := []*bodycode.Coder{coder(t, false), coder(t, true), coder(t, true, 1), coder(t, false, 2, 1), coder(t, true, 2, 1)}
	readOnly, err := newCoder(keyText(2, 1), false, true)
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, c := range append(coders, readOnly) {
		r.SetCoder(c)
		for _, size := range []int{100, 200_000} {
			if err := stream(t, r, message("a@x.example", fmt.Sprintf("u%d@y.example", sent)), size); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	state, err := r.Bodies(t.Context())
	if err != nil || len(state.Stored) != 5 || state.Encoding != "" || len(state.Keys) != 2 || state.Behind != 0 {
		t.Errorf("%+v, %v", state, err)
	}
	r = r.reopen(queue.Options{Coder: readOnly}) // none is in memory
	w := r.relayer()
	for range sent {
		j := takeOne(t, w)
		if size, sum := readBody(t, w, j); size != j.Message.Size || sum != wantSum(int(size)) {
			t.Errorf("body of %d bytes, message of %d", size, j.Message.Size)
		}
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
	}
}

// Mail whose key is missing waits, without end and without an attempt, and goes
// on by itself when the key is back.
func TestMissingKey(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{Coder: coder(t, false, 1)})
	for _, size := range []int{100, 200_000} {
		if err := stream(t, r, message("a@x.example", "b@y.example"), size); err != nil {
			t.Fatal(err)
		}
	}
	r = r.reopen(queue.Options{TTL: time.Millisecond, Coder: coder(t, false, 2)})
	eventually(t, "it is said at the start", func() bool { return strings.Contains(r.log.String(), "under a key that is missing") })
	w := r.relayer()
	end := takesNothing(t, w)
	eventually(t, "hold", func() bool {
		l := r.list()
		return len(l) == 2 && l[0].Envelope.Held && l[1].Envelope.Held
	})
	for _, l := range r.list() {
		if e := l.Envelope; e.Attempts != 0 || !strings.Contains(e.HeldFor, "key ") || !strings.Contains(e.HeldFor, "missing") {
			t.Errorf("held: %+v", e)
		}
	}
	if !strings.Contains(r.log.String(), "level=ERROR") {
		t.Errorf("log: %s", r.log)
	}
	end()
	if _, failed, err := recode(t.Context(), r, false); failed != 2 || err != nil {
		t.Errorf("stored anew without the key: %d failed, %v", failed, err)
	}
	r.SetCoder(coder(t, false, 2, 1))
	w = r.relayer()
	for range 2 {
		j := takeOne(t, w)
		if size, sum := readBody(t, w, j); sum != wantSum(int(size)) || j.Envelopes[0].Attempts != 0 {
			t.Errorf("body of %d bytes, %+v", size, j.Envelopes)
		}
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
	}
	if holds, err := r.Holds(t.Context()); err != nil || len(holds) != 0 {
		t.Errorf("holds left: %+v, %v", holds, err)
	}
}

// Rotation goes over what is there, also over mail that began to come under the
// old key and ends after the new one is in force; then nothing needs the old one.
func TestRotation(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{Coder: coder(t, true, 1)})
	const small, large = 70, 2
	for i := range small {
		r.enqueue(message("a@x.example", fmt.Sprintf("u%d@y.example", i)), text)
	}
	for range large {
		if err := stream(t, r, message("a@x.example", "b@y.example"), 200_000); err != nil {
			t.Fatal(err)
		}
	}
	late, err := r.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Write(make([]byte, 150_000)); err != nil {
		t.Fatal(err)
	}
	r.SetCoder(coder(t, true, 2, 1))
	total, rest := 0, queue.RecodeRequest{}
	for range 20 { // as often as one likes: a message is still under way
		got, err := r.Recode(t.Context(), rest)
		if err != nil || got.End {
			t.Fatalf("%+v, %v", got, err)
		}
		total += got.Done
		rest.From, rest.After = got.From, got.After
	}
	if state, err := r.Bodies(t.Context()); total != small+large || err != nil || state.Behind != 1 {
		t.Errorf("%d stored anew, %+v, %v", total, state, err)
	}
	if err := late.Commit(t.Context(), message("a@x.example", "late@y.example")); err != nil {
		t.Fatal(err)
	}
	if n, failed, err := recode(t.Context(), r, false); n != 1 || failed != 0 || err != nil {
		t.Errorf("%d stored anew, %d failed, %v", n, failed, err)
	}
	r = r.reopen(queue.Options{Coder: coder(t, true, 2)})
	w := r.relayer()
	for range small + large + 1 {
		j := takeOne(t, w)
		if _, sum := readBody(t, w, j); j.Body == nil && j.Message.Size == 200_000 && sum != wantSum(200_000) || j.Body != nil && string(j.Body) != text {
			t.Errorf("%s is not what it was", j.Message.ID)
		}
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
	}
	if names := bodyFiles(t, r.path); len(names) != 0 {
		t.Errorf("bodies left: %v", names)
	}
}

// Mail in clear is encrypted by rotation only if that is asked for, and in clear
// again when nothing is encrypted any more.
func TestRotationOfAll(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	if _, err := r.Recode(t.Context(), queue.RecodeRequest{}); err == nil {
		t.Error("stored anew without a configuration")
	}
	r.enqueue(message("a@x.example", "b@y.example"), text)
	if err := stream(t, r, message("a@x.example", "b@y.example"), 200_000); err != nil {
		t.Fatal(err)
	}
	readOnly, err := newCoder(keyText(1), false, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		coder *bodycode.Coder
		all   bool
		want  int
	}{{coder(t, true, 1), false, 0}, {coder(t, true, 1), true, 2}, {readOnly, false, 2}} {
		r.SetCoder(step.coder)
		if n, failed, err := recode(t.Context(), r, step.all); n != step.want || failed != 0 || err != nil {
			t.Errorf("%d stored anew, want %d; %d failed, %v", n, step.want, failed, err)
		}
	}
	if state, err := r.Bodies(t.Context()); err != nil || len(state.Stored) != 1 || state.Stored[0].Encoding != "" {
		t.Errorf("%+v, %v", state, err)
	}
}

// With encryption on, what comes in is in clear in no file, and a report that quotes it
// is in none either.
func TestNothingIsInClear(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{Coder: coder(t, false, 1)})
	secret := "the secret of the message"
	body := "From: a@x.example\r\nSubject: hello\r\n\r\n" + strings.Repeat(secret+"\r\n", 5000)
	w, err := r.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), message("a@x.example", "b@y.example")); err != nil {
		t.Fatal(err)
	}
	r.enqueue(message("a@x.example", "c@z.example"), body[:2000])
	relay := r.relayer()
	for range 2 {
		done(t, relay, takeOne(t, relay), queue.Result{Outcome: queue.Failed, Code: 550, Text: "no"})
	}
	eventually(t, "the reports", func() bool {
		l := r.list()
		return len(l) == 2 && l[0].Sender == "" && l[1].Sender == ""
	})
	err = filepath.WalkDir(filepath.Dir(r.path), func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("in clear in %s", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
