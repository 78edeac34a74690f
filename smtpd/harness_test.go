package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/internal/logging/logtest"
	"tabard/internal/selfca"
)

const testPatience = 20 * time.Second

// rig is a running server with its fakes.
type rig struct {
	t      testing.TB
	srv    *Server
	lookup *fakeLookup
	queue  *fakeQueue
	log    *logtest.Buffer
	addr   string
	roots  *x509.CertPool
}

// option changes a rig before it starts.
type option func(*rig, *Config)

func onListener(f func(*Listener)) option {
	return func(_ *rig, c *Config) { f(&c.Listeners[0]) }
}

func onConfig(f func(*Config)) option { return func(_ *rig, c *Config) { f(c) } }

func onLookup(f func(*fakeLookup)) option { return func(r *rig, _ *Config) { f(r.lookup) } }

func onQueue(f func(*fakeQueue)) option { return func(r *rig, _ *Config) { f(r.queue) } }

func withTLS(mode config.TLSMode) option {
	return func(r *rig, c *Config) {
		ca := authority(r.t)
		r.roots = x509.NewCertPool()
		r.roots.AppendCertsFromPEM(ca.PEM())
		cert := issue(r.t, ca, selfca.ECDSA, "mx.example.org")
		r.lookup.certs = map[string]tls.Certificate{"mx.example.org": cert}
		c.Listeners[0].TLS, c.Listeners[0].HasPKI = mode, true
	}
}

func withAuth(mode config.AuthMode) option {
	return onListener(func(l *Listener) { l.Auth = mode })
}

// start runs a server with one listener until the test ends.
func start(t testing.TB, options ...option) *rig {
	t.Helper()
	r := &rig{t: t, lookup: &fakeLookup{}, queue: &fakeQueue{}, log: &logtest.Buffer{}}
	cfg := Config{
		Listeners: []Listener{{Name: "test"}}, Hostname: "mx.example.org",
		Timeouts: Timeouts{AuthDelay: time.Millisecond},
	}
	for _, o := range options {
		o(r, &cfg)
	}
	srv, err := New(cfg, r.lookup, r.queue, slog.New(slog.NewTextHandler(r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.srv = srv
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), 0, l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testPatience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}

// client is one end of an SMTP dialogue.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial connects without reading the banner.
func (r *rig) dial() *client {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: r.t}
	c.use(conn)
	return c
}

func (c *client) use(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(testPatience))
	c.conn, c.r = conn, bufio.NewReader(conn)
}

// hello connects and says EHLO.
func (r *rig) hello() *client {
	c := r.dial()
	c.expect("220 mx.example.org ESMTP Tabard")
	c.do("EHLO client.example", "250")
	return c
}

// secure connects with STARTTLS and says EHLO again.
func (r *rig) secure() *client {
	c := r.hello()
	c.do("STARTTLS", "220")
	c.startTLS(&tls.Config{RootCAs: r.roots, ServerName: "mx.example.org"})
	c.do("EHLO client.example", "250")
	return c
}

func (c *client) startTLS(cfg *tls.Config) tls.ConnectionState {
	c.t.Helper()
	tc := tls.Client(c.conn, cfg)
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.use(tc)
	return tc.ConnectionState()
}

func (c *client) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// reply reads one reply, all its lines.
func (c *client) reply() string {
	c.t.Helper()
	s, err := c.tryReply()
	if err != nil {
		c.t.Fatalf("after %q: %v", s, err)
	}
	return s
}

func (c *client) tryReply() (string, error) {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return b.String(), err
		}
	}
}

func (c *client) expect(prefix string) string {
	c.t.Helper()
	got := c.reply()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q", got, prefix)
	}
	if !strings.HasSuffix(got, "\r\n") {
		c.t.Fatalf("reply %q does not end with CRLF", got)
	}
	return got
}

// do sends a command and expects a reply.
func (c *client) do(command, prefix string) string {
	c.t.Helper()
	c.write(command + "\r\n")
	return c.expect(prefix)
}

// gone expects the end of the connection.
func (c *client) gone() {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if len(rest) > 0 || err != nil {
		c.t.Fatalf("got %q, %v; want the end of the connection", rest, err)
	}
}

// envelope begins a transaction.
func (c *client) envelope() {
	c.t.Helper()
	c.do("MAIL FROM:<a@client.example>", "250 2.1.0 Ok")
	c.do("RCPT TO:<b@example.org>", "250 2.1.5")
}

// only returns the one message in the queue.
func (r *rig) only() stored {
	r.t.Helper()
	all := r.queue.all()
	if len(all) != 1 {
		r.t.Fatalf("%d messages in the queue, want 1", len(all))
	}
	return all[0]
}

// content is a stored body without the Received field in front.
func (s stored) content() string {
	rest := s.body
	for {
		i := strings.Index(rest, "\r\n")
		if i < 0 {
			return ""
		}
		rest = rest[i+2:]
		if !strings.HasPrefix(rest, "\t") {
			return rest
		}
	}
}

func (r *rig) clientTLS() *tls.Config {
	return &tls.Config{RootCAs: r.roots, ServerName: "mx.example.org"}
}
