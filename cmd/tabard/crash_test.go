package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/bench/load"
	"tabard/bench/proctree"
	"tabard/queue"
)

// crashSize is the size of a message of the crash test, bytes.
const crashSize = 4096

// receipts counts the copies of each numbered message that arrived whole.
type receipts struct {
	mu      sync.Mutex
	copies  map[int64]int
	corrupt []string
	body    string // what every message's body must be, with LF
}

var loadNumber = regexp.MustCompile(`(?m)^X-Load-Number: (\d+)\r?$`)

// add takes one message as it was delivered.
func (r *receipts) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text = strings.ReplaceAll(text, "\r\n", "\n")
	m := loadNumber.FindStringSubmatch(text)
	_, body, found := strings.Cut(text, "\n\n")
	if m == nil || !found || body != r.body {
		r.corrupt = append(r.corrupt, text)
		return
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		r.corrupt = append(r.corrupt, text)
		return
	}
	r.copies[n]++
}

func newReceipts() *receipts { return receiptsOf(crashSize) }

// receiptsOf is for messages of a size in bytes.
func receiptsOf(size int) *receipts {
	return &receipts{copies: map[int64]int{}, body: strings.ReplaceAll(load.Body(size), "\r\n", "\n")}
}

// lacking returns how many of the acknowledged messages did not arrive.
func (r *receipts) lacking(acked map[int64]bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for id := range acked {
		if r.copies[id] == 0 {
			n++
		}
	}
	return n
}

func (r *receipts) duplicates() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.copies {
		n += c - 1
	}
	return n
}

// sinkSession takes mail into receipts.
type sinkSession struct{ r *receipts }

func (sinkSession) Reset()                               {}
func (sinkSession) Logout() error                        { return nil }
func (sinkSession) Mail(string, *smtp.MailOptions) error { return nil }
func (sinkSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s sinkSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err == nil {
		s.r.add(string(text))
	}
	return err
}

// startSink runs an SMTP server that counts what arrives.
func startSink(t *testing.T, r *receipts) string {
	t.Helper()
	return serveHop(t, func() smtp.Session { return sinkSession{r} })
}

// serveHop runs an SMTP server.
func serveHop(t *testing.T, session func() smtp.Session) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return session(), nil }))
	srv.Domain = "sink.example"
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return l.Addr().String()
}

// acks collects the numbers of acknowledged messages.
type acks struct {
	mu   sync.Mutex
	seen map[int64]bool
}

func (a *acks) add(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[n] = true
}

// crashRun is mail of one kind in the crash test.
type crashRun struct {
	to   string
	got  *receipts
	acks *acks
	res  load.Result
}

// TestNothingAcknowledgedIsLost kills every process in turn, several times, under
// the load of 50 sessions: 25 whose mail goes to a Maildir, 25 whose mail is
// relayed. Larger mail waits all the time. After a while bodies are compressed and
// encrypted, under one new key after the other. Whatever got a 250 must arrive whole.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	s := startQuickstart(t)
	local := crashRun{to: s.user, got: newReceipts(), acks: &acks{seen: map[int64]bool{}}}
	relayed := crashRun{to: "n%d@sink.example", got: newReceipts(), acks: &acks{seen: map[int64]bool{}}}
	late := crashRun{to: "n%d@late.example", got: receiptsOf(lateSize), acks: &acks{seen: map[int64]bool{}}}
	s.edit(func(text string) string {
		text += "queue retry 1s\n"
		for domain, r := range map[string]*receipts{"sink": relayed.got, "late": late.got} {
			text += fmt.Sprintf("action %[1]q relay host \"smtp://%[2]s\"\nmatch from any for domain \"%[1]s.example\" action %[1]q\n", domain, startSink(t, r))
		}
		return text
	})
	s.keepsWaiting(&late)
	ctx, stopLoad := context.WithCancel(context.Background())
	defer stopLoad()
	var wg sync.WaitGroup
	for _, r := range []*crashRun{&local, &relayed} {
		wg.Go(func() {
			r.res, _ = load.Run(ctx, load.Options{Addr: s.smtp, Sessions: 25, PerConn: 5, Size: crashSize, From: "load@client.example", To: r.to, Acked: r.acks.add, Retry: true})
		})
	}
	var rotated func()
	s.killInTurn(func() {
		if rotated == nil {
			rotated = s.startRotating()
		}
	})
	rotated()
	stopLoad()
	wg.Wait()
	s.released()
	s.drained()
	for _, text := range s.maildir(s.user) {
		local.got.add(text)
	}
	for _, r := range []*crashRun{&local, &relayed, &late} {
		r.check(t)
		if r.res.Acked == 0 || r.res.Errors == 0 && r != &late {
			t.Errorf("to %s: the test did not bite: %+v", r.to, r.res)
		}
	}
}

// check compares what arrived with what was acknowledged.
func (r *crashRun) check(t *testing.T) {
	t.Helper()
	t.Logf("to %s: sent %d, acknowledged %d, delivered %d, duplicated %d, sessions cut %d",
		r.to, r.res.Sent, r.res.Acked, len(r.got.copies), r.got.duplicates(), r.res.Errors)
	if n := r.got.lacking(r.acks.seen); n > 0 {
		t.Errorf("to %s: %d acknowledged messages are lost", r.to, n)
	}
	if len(r.got.corrupt) > 0 {
		t.Errorf("to %s: %d messages arrived corrupt, such as:\n%.2000s", r.to, len(r.got.corrupt), r.got.corrupt[0])
	}
}

// killInTurn kills each process with SIGKILL, and last the supervisor itself. Between
// two rounds of that it calls between.
func (s *server) killInTurn(between func()) {
	s.t.Helper()
	for range rounds(4, 20) {
		for _, name := range []string{procSMTPD, procQueue, procMTA, procLookup, deliverName(-1)} {
			pause(time.Duration(rand.IntN(150)) * time.Millisecond)
			s.kill(name)
		}
		between()
	}
	for range rounds(2, 6) {
		pause(time.Duration(rand.IntN(300)) * time.Millisecond)
		_ = s.cmd.Process.Kill()
		<-s.done
		s.awaitOrphans()
		s.run()
	}
}

// pause lets the load go on for a random moment; it waits for no event.
func pause(d time.Duration) { <-time.After(d) }

// kill kills a process of the server, as soon as there is one of that name.
func (s *server) kill(name string) {
	s.t.Helper()
	eventually(s.t, name+" is there to be killed", func() bool {
		pids, err := proctree.Find(s.cmd.Process.Pid, "tabard: "+name)
		if err != nil || len(pids) == 0 {
			return false
		}
		return syscall.Kill(pids[0], syscall.SIGKILL) == nil
	})
}

// awaitOrphans waits until the processes of a killed supervisor have ended, so
// that the next one can have their sockets and files.
func (s *server) awaitOrphans() {
	s.t.Helper()
	eventually(s.t, "the killed server's socket is closed", func() bool {
		conn, err := net.Dial("tcp", s.smtp)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

// drained waits until the queue is empty.
func (s *server) drained() {
	s.t.Helper()
	eventually(s.t, "the queue is empty", func() bool {
		out, err := program("queue", "stats", "--json", "-c", s.config).Output()
		var st queue.Stats
		if err != nil || json.Unmarshal(out, &st) != nil {
			return false
		}
		return st.Envelopes == 0
	})
}

// TestPrivateKeyStaysInLookup looks for the bytes of the served private key in
// the memory of the processes. lookup is where it is, so the search works.
func TestPrivateKeyStaysInLookup(t *testing.T) {
	s := startQuickstart(t)
	for range 3 {
		dialSMTP(t, s.smtp).startTLS(s.trust("localhost"))
	}
	for what, needle := range s.keyBytes() {
		for name, want := range map[string]bool{procLookup: true, procSMTPD: false, procMTA: false, procQueue: false} {
			pids, err := proctree.Find(s.cmd.Process.Pid, "tabard: "+name)
			if err != nil || len(pids) != 1 {
				t.Fatalf("%s: pids %v, %v", name, pids, err)
			}
			found, err := proctree.Holds(pids[0], needle)
			if err != nil {
				t.Fatalf("memory of %s: %v", name, err)
			}
			if found != want {
				t.Errorf("%s in the memory of %s: %v, want %v", what, name, found, want)
			}
		}
	}
}
