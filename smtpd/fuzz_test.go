package smtpd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
)

// quiet is a server whose log goes nowhere and whose waits are short.
func quiet(t testing.TB) (*Server, *fakeQueue) {
	q := &fakeQueue{}
	short := 200 * time.Millisecond
	srv, err := New(Config{
		Listeners: []Listener{{Name: "fuzz", TLS: config.TLSStart, HasPKI: true, Auth: config.AuthOptional}},
		Hostname:  "mx.example.org", MaxMessageSize: 10_000,
		Timeouts: Timeouts{AuthDelay: time.Nanosecond, Handshake: short},
	}, &fakeLookup{}, q, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return srv, q
}

// serveTCP runs srv until stop is called, which also checks that it ends.
func serveTCP(t testing.TB, srv *Server) (addr string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), 0, l) }()
	return l.Addr().String(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), testPatience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// talk sends in, in two pieces, and returns all that came back.
func talk(t testing.TB, addr, in string, cut int) string {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(testPatience))
	cut %= len(in) + 1
	// Errors are the server's right: it may close in the middle.
	_, _ = io.WriteString(conn, in[:cut])
	_, _ = io.WriteString(conn, in[cut:])
	_ = conn.(*net.TCPConn).CloseWrite()
	out, _ := io.ReadAll(conn)
	return string(out)
}

// FuzzSession sends anything. Whatever comes in, the session ends, what comes
// back is SMTP, and what is stored has whole lines.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
		"EHLO x\r\nMAIL FROM:<a@b.example> SIZE=1 RET=FULL\r\nRCPT TO:<c@d.example> NOTIFY=NEVER\r\nBDAT 3\r\nabcBDAT 1 LAST\r\nx",
		"EHLO x\r\nSTARTTLS\r\n\x16\x03\x01\x00\x01\x01", "AUTH PLAIN\r\n", "GET / HTTP/1.0\r\n\r\n", "\r\n\r\n\r\n", "HELO\n",
		"EHLO x\r\nMAIL FROM:<\"a b\"@[IPv6:::1]>\r\nRCPT TO:<postmaster>\r\nDATA\r\nx\n.\r\n",
	} {
		f.Add(s, 5)
	}
	srv, q := quiet(f)
	addr, stop := serveTCP(f, srv)
	f.Cleanup(stop)
	f.Fuzz(func(t *testing.T, in string, cut int) {
		if cut < 0 {
			cut = -(cut + 1)
		}
		out := talk(t, addr, in, cut)
		if strings.HasPrefix(out, "220 ") && strings.Contains(out, "Internal server error") {
			t.Fatalf("panic: %q", out)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(out, "\r\n"), "\r\n") {
			if out != "" && !strings.Contains(out, "Ready to start TLS") && !isReply(line) {
				t.Fatalf("%q in %q", line, out)
			}
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, m := range q.messages {
			plain := strings.ReplaceAll(m.body, "\r\n", "")
			if strings.ContainsAny(plain, "\r\n\x00") || !strings.HasSuffix(m.body, "\r\n") {
				t.Fatalf("stored %q", m.body)
			}
		}
		q.messages = nil
	})
}

func isReply(line string) bool {
	if len(line) < 4 || line[3] != ' ' && line[3] != '-' || strings.ContainsAny(line, "\r\n\x00") {
		return false
	}
	return line[0] >= '2' && line[0] <= '5' && line[1] >= '0' && line[1] <= '9' && line[2] >= '0' && line[2] <= '9'
}

// TestNoLeaks: after hostile sessions of every kind, no goroutine is left.
func TestNoLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	srv, _ := quiet(t)
	addr, stop := serveTCP(t, srv)
	for i := range 20 {
		for _, in := range []string{
			"", "\x00\xff\xfe\r\n", strings.Repeat("x", 100_000), "EHLO x\r\nSTARTTLS\r\n\x16\x03", "GET / HTTP/1.0\r\n\r\n",
			"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + strings.Repeat("y\r\n", 100*i),
			"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 0\r\nRSET\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 100\r\nx",
		} {
			talk(t, addr, in, i)
		}
	}
	stop()
	for end := time.Now().Add(testPatience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
	srv.door.mu.Lock()
	defer srv.door.mu.Unlock()
	if len(srv.door.conns) != 0 || len(srv.door.addrs) != 0 || len(srv.door.listeners) != 0 {
		t.Errorf("left in the books: %d connections, %d addresses, %d listeners", len(srv.door.conns), len(srv.door.addrs), len(srv.door.listeners))
	}
}
