package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/bench/load"
	"tabard/bench/proctree"
	"tabard/internal/control"
	"tabard/internal/rpc"
	"tabard/queue"
)

// hop is a next hop that answers the final dot only when it is told to.
type hop struct {
	got  *receipts
	held chan struct{} // one for each message whose dot waits
	open chan struct{} // closed: they wait no more

	mu    sync.Mutex
	tries int
	busy  bool // refuses for the moment
}

func newHop() *hop {
	return &hop{got: newReceipts(), held: make(chan struct{}, 100), open: make(chan struct{})}
}

func (h *hop) Reset()                               {}
func (h *hop) Logout() error                        { return nil }
func (h *hop) Mail(string, *smtp.MailOptions) error { return nil }
func (h *hop) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (h *hop) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.tries++
	busy := h.busy
	h.mu.Unlock()
	if busy {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 2, 0}, Message: "busy"}
	}
	h.held <- struct{}{}
	<-h.open
	h.got.add(string(text))
	return nil
}

func (h *hop) setBusy(on bool) (tries int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = on
	return h.tries
}

// numbered is a message that receipts know.
func numbered(n int) string {
	return fmt.Sprintf("X-Load-Number: %d\n\n%s", n, strings.TrimSuffix(strings.ReplaceAll(load.Body(crashSize), "\r\n", "\n"), "\n"))
}

// submitted hands one message to the server in a session of its own.
func (s *server) submitted(n int) {
	s.t.Helper()
	d := dialSMTP(s.t, s.smtp)
	d.send("EHLO client.example", "250")
	d.sendMail("a@client.example", "b@example.org", numbered(n))
	d.send("QUIT", "221")
}

// control asks the server, without a program of its own, which would take most of
// the time of these tests.
func (s *server) control() *control.Client {
	s.t.Helper()
	socket := "control.sock"
	if s.user != "" {
		socket = "tabard.sock" // as quickstart has it
	}
	c, err := control.Dial(filepath.Join(s.dir, socket))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// processes lists the names in the status.
func (s *server) processes() []string {
	s.t.Helper()
	st, err := s.control().Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, p := range st.Processes {
		names = append(names, p.Name)
	}
	return names
}

func (s *server) reload() {
	s.t.Helper()
	if err := s.control().Reload(s.t.Context()); err != nil {
		s.t.Errorf("reload: %v", err)
	}
}

// old reports whether any process of an old generation is left.
func (s *server) old() bool {
	s.t.Helper()
	return strings.Contains(strings.Join(s.processes(), " "), "(old ")
}

// oneGeneration waits until every old process has ended.
func (s *server) oneGeneration() {
	s.t.Helper()
	eventually(s.t, "the old processes end", func() bool { return !s.old() })
}

// exactly checks that each of the messages 1 to n arrived once.
func (r *receipts) exactly(t *testing.T, n int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range int64(n) {
		if c := r.copies[id+1]; c != 1 {
			t.Errorf("message %d arrived %d times", id+1, c)
		}
	}
	if len(r.copies) != n || len(r.corrupt) > 0 {
		t.Errorf("%d messages, %d of them corrupt", len(r.copies), len(r.corrupt))
	}
}

// TestReloadKeepsWhatRuns holds a message out in the air, its final dot not
// answered, and a session open in the middle of another, over two reloads. Both
// go on; new sessions go by the new rules at once.
func TestReloadKeepsWhatRuns(t *testing.T) {
	s, h := newServer(t), newHop()
	sink := serveHop(t, func() smtp.Session { return h })
	s.write(s.config, s.conf("mx1.example", sink, s.smtp))
	s.run()
	t.Cleanup(s.stop)
	s.submitted(1)
	<-h.held
	d := dialSMTP(t, s.smtp)
	d.send("EHLO client.example", "250")
	d.send("MAIL FROM:<a@client.example>", "250")
	d.send("RCPT TO:<b@example.org>", "250")
	d.send("DATA", "354")
	first, rest, _ := strings.Cut(strings.ReplaceAll(numbered(2), "\n", "\r\n"), "dog")
	d.write(first)
	for _, host := range []string{"mx2.example", "mx3.example"} {
		s.write(s.config, strings.Replace(s.conf(host, sink, s.smtp), "for domain", "!for domain", 1))
		s.reload()
		n := dialSMTP(t, s.smtp)
		if e := n.send("EHLO client.example", "250"); !strings.Contains(e, host) {
			t.Errorf("after the reload to %s: %q", host, e)
		}
		n.send("MAIL FROM:<a@client.example>", "250")
		n.send("RCPT TO:<b@example.org>", "550")
		n.send("QUIT", "221")
	}
	eventually(t, "the generation without work ends", func() bool { return !slices.Contains(s.processes(), "lookup (old 2)") })
	for _, name := range []string{"smtpd (old 1)", "mta (old 1)", "lookup (old 1)"} {
		if !slices.Contains(s.processes(), name) {
			t.Errorf("%s has ended before its work:\n%s", name, s.processes())
		}
	}
	d.write("dog" + rest)
	d.send("\r\n.", "250")
	<-h.held // brought by the new mta
	close(h.open)
	s.drained()
	h.got.exactly(t, 2)
	eventually(t, "the old mta ends", func() bool { return !slices.Contains(s.processes(), "mta (old 1)") })
	d.send("RCPT TO:<b@example.org>", "503")
	d.send("QUIT", "221")
	s.oneGeneration()
}

// withQueue asks the queue's process.
func (s *server) withQueue(f func(queue.Admin) error) {
	s.t.Helper()
	conn, err := s.control().Connect(s.t.Context(), procQueue)
	if err != nil {
		s.t.Fatal(err)
	}
	client := rpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	if err := f(queue.NewRemoteAdmin(client)); err != nil {
		s.t.Fatal(err)
	}
}

// listed returns what is in the queue.
func (s *server) listed() []queue.Listed {
	s.t.Helper()
	var all []queue.Listed
	s.withQueue(func(q queue.Admin) error {
		return eachListed(s.t.Context(), q, queue.Filter{}, 0, func(page []queue.Listed) error {
			all = append(all, page...)
			return nil
		})
	})
	return all
}

// TestReloadChangesRetries: a message that waits keeps its time to live and the
// pause that runs; its next pauses are by the new rules.
func TestReloadChangesRetries(t *testing.T) {
	s, h := newServer(t), newHop()
	close(h.open)
	h.setBusy(true)
	text := s.conf("mx1.example", serveHop(t, func() smtp.Session { return h }), s.smtp)
	s.write(s.config, text+"queue retry 1h\nqueue ttl 2d\n")
	s.run()
	t.Cleanup(s.stop)
	s.submitted(1)
	eventually(t, "it is deferred", func() bool { return h.setBusy(true) == 1 && s.listed()[0].Envelope.Attempts == 1 })
	before := s.listed()[0].Envelope
	s.write(s.config, strings.Replace(text, "relay host", "relay ttl 3d host", 1)+"queue retry 1s\nqueue ttl 1d\n")
	s.reload()
	after := s.listed()[0].Envelope
	if !after.Expires.Equal(before.Expires) || !after.Next.Equal(before.Next) || time.Until(after.Next) < 50*time.Minute {
		t.Errorf("before %v and %v, after %v and %v", before.Next, before.Expires, after.Next, after.Expires)
	}
	s.withQueue(func(q queue.Admin) error {
		_, err := q.Steer(t.Context(), queue.Steer{Op: queue.OpRetry, Filter: queue.Filter{IDs: []string{after.ID.String()}}, Limit: 1})
		return err
	})
	eventually(t, "it is tried every second", func() bool { return h.setBusy(true) >= 3 })
	s.submitted(2)
	for _, l := range s.listed() {
		want := 48 * time.Hour // of when it came
		if l.Envelope.ID != after.ID {
			want = 72 * time.Hour
		}
		if ttl := l.Envelope.Expires.Sub(l.Envelope.Created); ttl != want {
			t.Errorf("message %s is tried for %v, want %v", l.Envelope.ID, ttl, want)
		}
	}
	h.setBusy(false)
	s.drained()
	h.got.exactly(t, 2)
}

// TestReloadSwitchesInOrder stops the queue's process in the middle of a reload:
// until it has learned the new rules, only the old smtpd answers.
func TestReloadSwitchesInOrder(t *testing.T) {
	s, _ := reloadable(t)
	s.run()
	t.Cleanup(s.stop)
	pids, err := proctree.Find(s.cmd.Process.Pid, "tabard: "+procQueue)
	if err != nil || len(pids) != 1 {
		t.Fatalf("pids %v, %v", pids, err)
	}
	if err := syscall.Kill(pids[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.write(s.config, s.conf("mx2.example", "127.0.0.1:1", s.smtp))
	var wg sync.WaitGroup
	wg.Go(s.reload)
	eventually(t, "the new processes are in force", func() bool { return slices.Contains(s.processes(), "smtpd (old 1)") })
	// On a machine that is too slow to tell, the supervisor waits no longer.
	late := func() bool { return strings.Contains(s.log.String(), "does not confirm") }
	for range 10 {
		if b := banner(t, s.smtp); !strings.Contains(b, "mx1.example") && !late() {
			t.Errorf("banner %q before the queue has learned", b)
		}
	}
	if err := syscall.Kill(pids[0], syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for range 10 {
		if b := banner(t, s.smtp); !strings.Contains(b, "mx2.example") && !late() {
			t.Errorf("banner %q after the reload", b)
		}
	}
}

// TestReloadWhileReloading: a request that comes while another is carried out is
// carried out after it, however many come; and a stop does not wait for a file
// that cannot be read.
func TestReloadWhileReloading(t *testing.T) {
	s, _ := reloadable(t)
	s.run()
	t.Cleanup(s.stop)
	fifo := filepath.Join(s.dir, "include.conf")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	text := func(host string) string { return s.conf(host, "127.0.0.1:1", s.smtp) }
	hup := func() {
		t.Helper()
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	// blocked returns when the server reads the file, which then takes until the
	// writer is closed.
	blocked := func(host string) *os.File {
		t.Helper()
		s.write(s.config, text(host)+"include \"include.conf\"\n")
		hup()
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := blocked("mx2.example")
	s.write(s.config, text("mx3.example")) // what the first one read is mx2
	for range 3 {
		hup()
	}
	if b := banner(t, s.smtp); !strings.Contains(b, "mx1.example") {
		t.Errorf("banner %q", b)
	}
	if s.old() {
		t.Errorf("processes: %v", s.processes())
	}
	_ = w.Close()
	eventually(t, "the last one is in force", func() bool { return strings.Contains(banner(t, s.smtp), "mx3.example") })
	s.reload()
	s.log.await(t, `(?s)(: configuration reloaded.*){3}`)
	if n := strings.Count(s.log.String(), ": configuration reloaded"); n != 3 {
		t.Errorf("%d reloads, want 3:\n%s", n, s.log)
	}
	s.oneGeneration()
	w = blocked("mx4.example")
	s.stop()
	_ = w.Close()
}
