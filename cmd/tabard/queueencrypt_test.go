package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"tabard/internal/bodycode"
	"tabard/queue"
)

// TestQueueEncryption has the keys of a server's queue made, rotated and forgotten
// while mail waits, which then arrives as it was.
func TestQueueEncryption(t *testing.T) {
	s, h := newServer(t), newHop()
	close(h.open)
	h.setBusy(true)
	keys := filepath.Join(s.dir, "queue.key")
	text := s.conf("mx1.example", serveHop(t, func() smtp.Session { return h }), s.smtp) + "queue retry 1h\n"
	s.write(s.config, text)
	s.run()
	t.Cleanup(s.stop)
	s.submitted(1) // in clear

	s.write(s.config, text+fmt.Sprintf("queue compression\nqueue encryption %q\n", keys))
	if out, err := program("reload", "-c", s.config).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("tabard queue encrypt new-key")) {
		t.Errorf("reload without the file: %v\n%s", err, out)
	}
	first := regexp.MustCompile(`^key ([0-9a-f]{16}) in `).FindStringSubmatch(tabard(t, "queue", "encrypt", "new-key", "-c", s.config))
	if info, err := os.Stat(keys); err != nil || info.Mode().Perm() != 0o600 || first == nil {
		t.Fatalf("%v, %v, %v", info, err, first)
	}
	s.reload()
	s.submitted(2)
	eventually(t, "both are deferred", func() bool {
		l := s.listed()
		return len(l) == 2 && l[0].Envelope.Attempts == 1 && l[1].Envelope.Attempts == 1
	})
	if got := s.keyLines(); got[first[1]] != "encrypts 1" || got[""] != "not encrypted 1" {
		t.Errorf("keys: %v", got)
	}
	// The queue process has its keys also when it is started anew.
	s.kill(procQueue)
	eventually(t, "the queue is back", func() bool { return len(s.keyLines()) == 2 })

	out := tabard(t, "queue", "encrypt", "rotate", "--all", "-c", s.config)
	if !strings.Contains(out, "2 bodies stored under key ") || !strings.Contains(out, "key "+first[1]+" may go") {
		t.Errorf("rotate: %s", out)
	}
	if got := s.keyLines(); got[first[1]] != "may go 0" || len(got) != 3 {
		t.Errorf("keys: %v", got)
	}
	out = tabard(t, "queue", "encrypt", "rotate", "--keep-key", "--forget", "-c", s.config)
	if !strings.Contains(out, "0 bodies stored") || !strings.Contains(out, "key "+first[1]+" is forgotten") {
		t.Errorf("rotate: %s", out)
	}
	if file, err := os.ReadFile(keys); err != nil || bytes.Contains(file, []byte(first[1])) || len(s.keyLines()) != 2 {
		t.Errorf("keys: %v, %v\n%s", s.keyLines(), err, file)
	}
	h.setBusy(false)
	s.withQueue(func(q queue.Admin) error {
		_, err := q.Steer(t.Context(), queue.Steer{Op: queue.OpRetry, Limit: 10})
		return err
	})
	s.drained()
	h.got.exactly(t, 2)
}

// keyLines is what `queue encrypt ls` says of each key; nothing while it cannot.
func (s *server) keyLines() map[string]string {
	out, err := program("queue", "encrypt", "ls", "--json", "-c", s.config).Output()
	var lines []keyLine
	if err != nil || json.Unmarshal(out, &lines) != nil {
		return nil
	}
	all := make(map[string]string)
	for _, l := range lines {
		all[l.Key] = fmt.Sprint(l.State, " ", l.Messages)
	}
	return all
}

func TestKeyLines(t *testing.T) {
	count := func(e string, n int64) queue.EncodingCount {
		return queue.EncodingCount{Encoding: bodycode.Encoding(e), Messages: n}
	}
	state := queue.BodyState{
		Encoding: "zstd+aes-256-gcm:b", Keys: []string{"b", "a", "c"},
		Stored: []queue.EncodingCount{count("", 1), count("zstd", 2), count("aes-256-gcm:a", 3), count("zstd+aes-256-gcm:a", 4), count("aes-256-gcm:x", 5), count("zstd+aes-256-gcm:x", 6)},
	}
	want := "[{b encrypts 0} {a needed 7} {c may go 0} {x missing: its messages wait 11} { not encrypted 3}]"
	if got := fmt.Sprint(keyLines(state)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	state.Behind = 1
	if got := fmt.Sprint(keyLines(state)); !strings.Contains(got, "{c may be needed: mail is coming in 0}") {
		t.Errorf("while mail is coming in: %s", got)
	}
}

func TestSecretTextIsNotPrinted(t *testing.T) {
	c := queueConfig{Keys: "a secret"}
	if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, c.Keys); strings.Contains(s, "a secret") {
		t.Error(s)
	}
}
