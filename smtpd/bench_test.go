package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"golang.org/x/sys/unix"

	"tabard/internal/config"
	"tabard/internal/logging"
	"tabard/internal/selfca"
	"tabard/lookup"
	"tabard/queue"
)

// The benchmarks count client and server together, in one process, against a
// queue that forgets; BenchmarkNull is bare go-smtp under the same client.

type nullQueue struct{}

func (nullQueue) Enqueue(context.Context, queue.Submission, []byte) error { return nil }
func (nullQueue) Accepting() error                                        { return nil }
func (nullQueue) Create(context.Context) (queue.Writer, error)            { return nullWriter{}, nil }

type nullWriter struct{}

func (nullWriter) Write(p []byte) (int, error)                    { return len(p), nil }
func (nullWriter) Commit(context.Context, queue.Submission) error { return nil }
func (nullWriter) Abort()                                         {}

// nullLookup says yes without keeping anything.
type nullLookup struct{ *fakeLookup }

func (nullLookup) Recipient(_ context.Context, r lookup.RecipientRequest) (lookup.RecipientReply, error) {
	return lookup.RecipientReply{Targets: []lookup.Target{{Action: "local", Address: r.Recipient, User: "u"}}}, nil
}

func benchServer(b *testing.B, o ...func(*Listener)) (addr string, roots *tls.Config) {
	ca := authority(b)
	f := &fakeLookup{certs: map[string]tls.Certificate{"mx.example.org": issue(b, ca, selfca.ECDSA, "mx.example.org")}}
	log, err := logging.New(io.Discard, "smtpd", logging.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ln := Listener{Name: "bench"}
	for _, f := range o {
		f(&ln)
	}
	srv, err := New(Config{Listeners: []Listener{ln}, Hostname: "mx.example.org", MaxMails: 1 << 30}, nullLookup{f}, nullQueue{}, log)
	if err != nil {
		b.Fatal(err)
	}
	addr, stop := serveTCP(b, srv)
	b.Cleanup(stop)
	return addr, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.org"}
}

type nullSession struct{}

func (nullSession) Reset()                               {}
func (nullSession) Logout() error                        { return nil }
func (nullSession) Mail(string, *smtp.MailOptions) error { return nil }
func (nullSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (nullSession) Data(r io.Reader) error               { _, err := io.Copy(io.Discard, r); return err }

func benchNull(b *testing.B) string {
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return nullSession{}, nil }))
	srv.Domain, srv.MaxRecipients, srv.MaxMessageBytes = "mx.example.org", 1000, 35<<20
	srv.ErrorLog = libraryLog{slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	b.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// peerClient talks in steps, as most senders do.
type peerClient struct {
	b    *testing.B
	conn net.Conn
	r    *bufio.Reader
}

func benchDial(b *testing.B, addr string) *peerClient {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	c := &peerClient{b, conn, bufio.NewReader(conn)}
	c.step(nil, '2')
	c.step([]byte("EHLO client.example\r\n"), '2')
	return c
}

func (c *peerClient) step(send []byte, want byte) {
	if len(send) > 0 {
		if _, err := c.conn.Write(send); err != nil {
			c.b.Fatal(err)
		}
	}
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil || line[0] != want {
			c.b.Fatalf("%q, %v", line, err)
		}
		if line[3] == ' ' {
			return
		}
	}
}

func (c *peerClient) send(body []byte) {
	c.step([]byte("MAIL FROM:<a@client.example>\r\n"), '2')
	c.step([]byte("RCPT TO:<b@example.org>\r\n"), '2')
	c.step([]byte("DATA\r\n"), '3')
	c.step(body, '2')
}

func (c *peerClient) quit() {
	c.step([]byte("QUIT\r\n"), '2')
	_ = c.conn.Close()
}

func benchBody(size int) []byte {
	head := "From: <a@client.example>\r\nTo: <b@example.org>\r\nSubject: test\r\nDate: Mon, 23 Nov 2026 04:14:41 +0000\r\nMessage-ID: <x@y>\r\n\r\n"
	line := strings.Repeat("x", 70) + "\r\n"
	text := head + strings.Repeat(line, (size-len(head))/len(line))
	return []byte(text + ".\r\n")
}

func BenchmarkSession(b *testing.B) {
	servers := map[string]func(*testing.B) string{
		"tabard": func(b *testing.B) string { addr, _ := benchServer(b); return addr },
		"null":   benchNull,
	}
	for _, name := range []string{"tabard", "null"} {
		start := servers[name]
		b.Run("many-4KiB/"+name, func(b *testing.B) { benchMany(b, start(b), 4<<10) })
		b.Run("many-100KiB/"+name, func(b *testing.B) { benchMany(b, start(b), 100<<10) })
		b.Run("one-4KiB/"+name, func(b *testing.B) { benchOne(b, start(b), 4<<10) })
	}
}

// cpu reports the processor time of an operation, client and server: on a busy
// machine it says more than the time that passed.
func cpu(b *testing.B) func() {
	before := cpuTime(b)
	return func() {
		b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1000, "cpu-us/op")
	}
}

func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func benchMany(b *testing.B, addr string, size int) {
	body := benchBody(size)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	defer cpu(b)()
	b.RunParallel(func(pb *testing.PB) {
		c := benchDial(b, addr)
		for pb.Next() {
			c.send(body)
		}
		c.quit()
	})
}

func benchOne(b *testing.B, addr string, size int) {
	body := benchBody(size)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	defer cpu(b)()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := benchDial(b, addr)
			c.send(body)
			c.quit()
		}
	})
}

func BenchmarkHandshake(b *testing.B) {
	addr, cfg := benchServer(b, func(l *Listener) { l.TLS, l.HasPKI = config.TLSStart, true })
	b.ReportAllocs()
	for b.Loop() {
		c := benchDial(b, addr)
		c.step([]byte("STARTTLS\r\n"), '2')
		tc := tls.Client(c.conn, cfg)
		if err := tc.Handshake(); err != nil {
			b.Fatal(err)
		}
		c.conn, c.r = tc, bufio.NewReader(tc)
		c.step([]byte("EHLO x\r\n"), '2')
		c.quit()
	}
}

func BenchmarkScanner(b *testing.B) {
	for _, size := range []int{4 << 10, 100 << 10} {
		body := benchBody(size)
		b.SetBytes(int64(len(body)))
		b.Run(map[bool]string{true: "4KiB", false: "100KiB"}[size == 4<<10], func(b *testing.B) {
			var w discard
			for b.Loop() {
				sc := scanner{dots: true}
				for rest := body; ; {
					n, done, err := sc.scan(rest[:min(len(rest), inputBuffer)], w)
					if err != nil {
						b.Fatal(err)
					}
					if done {
						break
					}
					rest = rest[n:]
				}
			}
			b.SetBytes(int64(len(body)))
		})
	}
	if !bytes.HasSuffix(benchBody(100), []byte("\r\n.\r\n")) {
		b.Fatal("bad body")
	}
}

type discard struct{}

func (discard) take([]byte) {}
