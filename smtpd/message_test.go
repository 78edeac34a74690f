package smtpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/queue"
)

// TestStreams sends messages around the size at which they stream.
func TestStreams(t *testing.T) {
	r := start(t)
	c := r.hello()
	sizes := []int{1, queue.InlineBody - 300, queue.InlineBody, 2*queue.InlineBody - 150, 5 * queue.InlineBody}
	for i := range 40 { // around the very edge
		sizes = append(sizes, queue.InlineBody-230+i*4)
	}
	for i, n := range sizes {
		line := strings.Repeat("y", 70) + "\r\n"
		text := strings.Repeat(line, n/len(line)) + strings.Repeat("z", n%len(line)) + "\r\n"
		c.do("MAIL FROM:<a@b.example>", "250")
		c.do("RCPT TO:<b@c.example>", "250")
		c.do("DATA", "354")
		c.write("A: b\r\n\r\n" + text)
		c.do(".", "250")
		m := r.queue.all()[i]
		if m.content() != "A: b\r\n\r\n"+text || m.Message.Size != int64(len(m.body)) {
			t.Fatalf("%d bytes: stored %d, size %d", n, len(m.content()), m.Message.Size)
		}
	}
	if r.queue.open != 0 {
		t.Errorf("%d writers open", r.queue.open)
	}
}

func TestQueueErrors(t *testing.T) {
	full := fmt.Errorf("queue: %w", rpc.ErrNoSpace)
	other := errors.New("queue is away")
	tests := []struct {
		name string
		q    func(*fakeQueue)
		size int
		want string
	}{
		{"full", func(q *fakeQueue) { q.err = full }, 10, "452 4.3.1"},
		{"full at create", func(q *fakeQueue) { q.err = full }, 1 << 20, "452 4.3.1"},
		{"full at write", func(q *fakeQueue) { q.writeErr = full }, 1 << 20, "452 4.3.1"},
		{"full at commit", func(q *fakeQueue) { q.commitErr = full }, 1 << 20, "452 4.3.1"},
		{"away", func(q *fakeQueue) { q.err = other }, 10, "451 4.3.0"},
		{"away at create", func(q *fakeQueue) { q.err = other }, 1 << 20, "451 4.3.0"},
		{"away at write", func(q *fakeQueue) { q.writeErr = other }, 1 << 20, "451 4.3.0"},
		{"away at commit", func(q *fakeQueue) { q.commitErr = other }, 1 << 20, "451 4.3.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, onQueue(tt.q))
			c := r.hello()
			text := strings.Repeat(strings.Repeat("x", 78)+"\r\n", tt.size/80+1)
			c.envelope()
			c.do("DATA", "354")
			c.do(text+".", tt.want)
			c.envelope()
			c.do(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text[:len(text)-2]), tt.want)
			r.queue.mu.Lock()
			r.queue.err, r.queue.writeErr, r.queue.commitErr = nil, nil, nil
			if r.queue.open != 0 {
				t.Errorf("%d writers open", r.queue.open)
			}
			r.queue.mu.Unlock()
			c.envelope() // and it heals
			c.do("DATA", "354")
			c.do(text+".", "250")
			r.only()
		})
	}
}

// A queue that takes no mail for longer is no secret until the end of the data.
func TestQueueOutOfOrder(t *testing.T) {
	r := start(t, onQueue(func(q *fakeQueue) { q.closed = errors.New("damaged") }))
	c := r.hello()
	c.do("MAIL FROM:<a@client.example>", "451 4.3.0")
	r.queue.mu.Lock()
	r.queue.closed = nil
	r.queue.mu.Unlock()
	c.envelope()
}

func TestHeader(t *testing.T) {
	tests := []struct {
		name, in, want, submitted string
	}{
		{"complete", "Date: d\r\nMessage-Id: <m>\r\n\r\nx\r\n", "Date: d\r\nMessage-Id: <m>\r\n\r\nx\r\n", "Date: d\r\nMessage-Id: <m>\r\n\r\nx\r\n"},
		{"nothing", "", "", "<DATE><MID>"},
		{"no body", "A: b\r\n", "A: b\r\n", "A: b\r\n<DATE><MID>"},
		{"no id", "DATE : d\r\n\r\n", "DATE : d\r\n\r\n", "DATE : d\r\n<MID>\r\n"},
		{"blind copies", "bCC: a,\r\n\tb\r\n c\r\nTo: d\r\n e\r\nBcc:\r\n\r\nBcc: body\r\n", "bCC: a,\r\n\tb\r\n c\r\nTo: d\r\n e\r\nBcc:\r\n\r\nBcc: body\r\n", "To: d\r\n e\r\n<DATE><MID>\r\nBcc: body\r\n"},
		{"no header", "hello: is it me\r\nyou are\r\n", "hello: is it me\r\n\r\nyou are\r\n", "hello: is it me\r\n<DATE><MID>\r\nyou are\r\n"},
		{"folded first", " x\r\nA: b\r\n", "\r\n x\r\nA: b\r\n", "<DATE><MID>\r\n x\r\nA: b\r\n"},
		{"colon first", ": x\r\n", "\r\n: x\r\n", "<DATE><MID>\r\n: x\r\n"},
	}
	for _, tt := range tests {
		for _, pieces := range splits(tt.in) {
			for _, submission := range []bool{false, true} {
				want := tt.want
				if submission {
					want = tt.submitted
				}
				var got strings.Builder
				h := header{out: func(p []byte) { got.Write(p) }, submission: submission, missing: func(date, mid bool) []byte {
					s := ""
					if !date {
						s += "<DATE>"
					}
					if !mid {
						s += "<MID>"
					}
					return []byte(s)
				}}
				for _, p := range pieces {
					h.take([]byte(p))
				}
				h.end()
				if got.String() != want {
					t.Errorf("%s, submission %v, %q: got %q, want %q", tt.name, submission, pieces, got.String(), want)
				}
			}
		}
	}
}

// TestSubmission: only what users' programs send is completed.
func TestSubmission(t *testing.T) {
	r := start(t, withTLS(config.TLSStart), withAuth(config.AuthOptional))
	c := r.secure()
	c.envelope()
	c.do("DATA", "354")
	c.do("Bcc: x\r\n\r\nx\r\n.", "250")
	c.do("AUTH PLAIN "+b64("\x00gilles\x00secret"), "235")
	c.envelope()
	c.do("DATA", "354")
	c.do("Bcc: x\r\nA: b\r\n\r\nx\r\n.", "250")
	all := r.queue.all()
	if got := all[0].content(); got != "Bcc: x\r\n\r\nx\r\n" {
		t.Errorf("relayed: %q", got)
	}
	want := regexp.MustCompile(`^A: b\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\nMessage-ID: <` + all[1].Message.ID.String() + `@mx\.example\.org>\r\n\r\nx\r\n$`)
	if got := all[1].content(); !want.MatchString(got) {
		t.Errorf("submitted: %q", got)
	}
	if all[1].Message.User != "gilles" || !strings.Contains(all[1].body, " with ESMTPSA id ") {
		t.Errorf("message %+v, %q", all[1].Message, all[1].body)
	}
}

func TestLoop(t *testing.T) {
	r := start(t)
	c := r.hello()
	for n, want := range map[int]string{100: "250", 101: "554 5.4.6"} {
		c.envelope()
		c.do("DATA", "354")
		c.do(strings.Repeat("received: x\r\n", n)+"\r\nReceived: body\r\n.", want)
	}
}

func TestReceived(t *testing.T) {
	r := start(t)
	c := r.dial()
	c.expect("220")
	c.do("HELO evil(x);\tid", "500")
	c.do("HELO evil(x);", "250")
	c.envelope()
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	m := r.only()
	want := regexp.MustCompile(`^Received: from evil\?x\?\? \(localhost \[127\.0\.0\.1\]\)\r\n` +
		`\tby mx\.example\.org \(Tabard\) with SMTP id ` + m.Message.ID.String() + `\r\n` +
		`\tfor <b@example\.org>;\r\n` +
		`\t\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d \+0000 \(UTC\)\r\n`)
	if !want.MatchString(m.body) {
		t.Errorf("got %q", m.body)
	}
}

func TestReceivedOptions(t *testing.T) {
	tests := []struct {
		name      string
		options   []option
		auth      bool
		mail      string
		rcpts     int
		want, not string
	}{
		{"two recipients", nil, false, "", 2, "by mx.example.org (Tabard) with ESMTPS id ", "for <"},
		{"mask-src", []option{onListener(func(l *Listener) { l.MaskSource = true })}, false, "", 1, "Received: by mx.example.org (Tabard) with ", "127.0.0.1"},
		{"no received-auth", nil, true, "", 1, " with ESMTPSA id ", "gilles"},
		{"received-auth", []option{onListener(func(l *Listener) { l.ReceivedAuth = true })}, true, "", 1, "\r\n\t(auth=yes user=gilles)\r\n\tfor <", "xx"},
		{"SMTPUTF8", nil, false, " SMTPUTF8", 1, " with UTF8SMTPS id ", " ESMTP"},
		{"SMTPUTF8 and AUTH", nil, true, " SMTPUTF8", 1, " with UTF8SMTPSA id ", " ESMTP"},
		{"hostname", []option{onListener(func(l *Listener) { l.Hostname = "other.example" })}, false, "", 1, "by other.example (", "mx.example.org"},
		{"hostnames", []option{onListener(func(l *Listener) { l.HasHostnames = true })}, false, "", 1, "by by-address.example (", "mx.example.org"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := append([]option{withTLS(config.TLSStart), withAuth(config.AuthOptional)}, tt.options...)
			r := start(t, opts...)
			c := r.dial()
			c.expect("220 ")
			c.do("STARTTLS", "220")
			c.startTLS(r.clientTLS())
			c.do("EHLO x", "250")
			if tt.auth {
				c.do("AUTH PLAIN "+b64("\x00gilles\x00secret"), "235")
			}
			c.do("MAIL FROM:<a@b.example>"+tt.mail, "250")
			for i := range tt.rcpts {
				c.do(fmt.Sprintf("RCPT TO:<r%d@c.example>", i), "250")
			}
			c.do("DATA", "354")
			c.do("Date: d\r\nMessage-ID: i\r\n\r\n.", "250")
			trace := strings.TrimSuffix(r.only().body, r.only().content())
			if !strings.Contains(trace, tt.want) || strings.Contains(trace, tt.not) {
				t.Errorf("trace %q", trace)
			}
		})
	}
}

// TestNames: the client's name comes from lookup, is waited for where it is
// needed, and its failure is not the client's.
func TestNames(t *testing.T) {
	remote := netip.MustParseAddrPort("192.0.2.7:4321")
	tests := []struct {
		name    string
		connect func(context.Context, lookup.ConnectRequest) (lookup.ConnectReply, error)
		want    string
	}{
		{"found", func(_ context.Context, q lookup.ConnectRequest) (lookup.ConnectReply, error) {
			if q.Remote != remote {
				return lookup.ConnectReply{}, fmt.Errorf("asked for %v", q.Remote)
			}
			return lookup.ConnectReply{RDNS: "client.example"}, nil
		}, "client.example"},
		{"error", func(context.Context, lookup.ConnectRequest) (lookup.ConnectReply, error) {
			return lookup.ConnectReply{}, errors.New("no lookup")
		}, "<unknown>"},
		{"slow", func(ctx context.Context, _ lookup.ConnectRequest) (lookup.ConnectReply, error) {
			<-ctx.Done()
			return lookup.ConnectReply{}, ctx.Err()
		}, "<unknown>"},
		{"hostile", func(context.Context, lookup.ConnectRequest) (lookup.ConnectReply, error) {
			return lookup.ConnectReply{RDNS: "a)\r\nX-Evil: (b"}, nil
		}, "a??X-Evil:??b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, onLookup(func(f *fakeLookup) { f.connect = tt.connect }),
				onConfig(func(c *Config) { c.Timeouts.Name = 20 * time.Millisecond }))
			l := r.listen(remote)
			c := &client{t: t}
			c.use(l)
			c.expect("220")
			c.do("EHLO x", "250-mx.example.org Hello x [192.0.2.7]")
			c.envelope()
			c.do("DATA", "354")
			c.do("x\r\n.", "250")
			if got := r.only().body; !strings.HasPrefix(got, "Received: from x ("+tt.want+" [192.0.2.7])\r\n") {
				t.Errorf("trace %q", got)
			}
			r.await("smtp connected\" session=")
		})
	}
}

// TestNamesAreLoggedFirst: who is gone before its name is known is logged in
// order all the same.
func TestNamesAreLoggedFirst(t *testing.T) {
	r := start(t, onLookup(func(f *fakeLookup) {
		f.connect = func(ctx context.Context, _ lookup.ConnectRequest) (lookup.ConnectReply, error) {
			<-ctx.Done()
			return lookup.ConnectReply{}, ctx.Err()
		}
	}))
	c := &client{t: t}
	c.use(r.listen(netip.MustParseAddrPort("192.0.2.7:25")))
	c.expect("220")
	c.do("QUIT", "221")
	r.await("smtp disconnected")
	log := r.log.String()
	if i, j := strings.Index(log, "smtp connected"), strings.Index(log, "smtp disconnected"); i < 0 || i > j {
		t.Errorf("log: %s", log)
	}
}

// elsewhere is a connection that claims another remote address.
type elsewhere struct {
	net.Listener
	remote netip.AddrPort
}

type elsewhereConn struct {
	net.Conn
	remote netip.AddrPort
}

func (l elsewhere) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return elsewhereConn{c, l.remote}, err
}

func (c elsewhereConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// listen opens another socket whose clients seem to come from remote, and
// connects to it.
func (r *rig) listen(remote netip.AddrPort) net.Conn {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = r.srv.Serve(context.Background(), 0, elsewhere{l, remote}) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestIPv6Trace: an IPv6 client is an IPv6 literal (RFC 5321 section 4.1.3), and
// its zone is nobody's business (CVE-2023-29323).
func TestIPv6Trace(t *testing.T) {
	r := start(t)
	c := &client{t: t}
	c.use(r.listen(netip.MustParseAddrPort("[fe80::1%eth0]:25")))
	c.expect("220")
	c.do("EHLO x", "250")
	c.envelope()
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	if got := r.only().body; !strings.HasPrefix(got, "Received: from x (client.example [IPv6:fe80::1])\r\n") {
		t.Errorf("trace %q", got)
	}
}

func TestSocket(t *testing.T) {
	r := start(t, onListener(func(l *Listener) { l.Socket = true }))
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.srv.Serve(context.Background(), 0, l) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t}
	c.use(conn)
	c.expect("220")
	c.do("EHLO x", "250-mx.example.org Hello x [local]")
	c.envelope()
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	m := r.only()
	if !r.lookup.sessions[0].Socket || !strings.HasPrefix(m.body, "Received: from x (localhost [local])\r\n") || !strings.Contains(m.body, "Message-ID: <") {
		t.Errorf("facts %+v, body %q", r.lookup.sessions[0], m.body)
	}
	c.do("QUIT", "221")
	_ = l.Close()
	if err := <-done; err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func TestIDs(t *testing.T) {
	var s idSource
	now := time.UnixMilli(1_800_000_000_000)
	seen := map[queue.MessageID]bool{}
	for i := range 5000 {
		id := s.next(now.Add(time.Duration(i/3000) * -time.Millisecond))
		if seen[id] || int64(id)>>20 != now.UnixMilli() {
			t.Fatalf("id %v: seen %v", id, seen[id])
		}
		seen[id] = true
	}
}
