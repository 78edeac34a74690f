package smtpd

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// stalled is a listener on which nobody accepts until the server retires, so that
// connections wait in the kernel.
type stalled struct {
	*net.TCPListener
	once    sync.Once
	entered chan struct{}
	goOn    chan struct{}
}

func (l *stalled) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.entered) })
	<-l.goOn
	return l.TCPListener.Accept()
}

// SetDeadline is what the server begins to retire with.
func (l *stalled) SetDeadline(at time.Time) error {
	err := l.TCPListener.SetDeadline(at)
	close(l.goOn)
	return err
}

func listenStalled(t *testing.T) *stalled {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return &stalled{TCPListener: l, entered: make(chan struct{}), goOn: make(chan struct{})}
}

// refused reports whether nobody listens.
func (r *rig) refused() bool {
	c, err := net.Dial("tcp", r.addr)
	if err == nil {
		_ = c.Close()
	}
	return err != nil
}

// TestRetire: sessions go on as long as they like, nobody new is let in, and
// Retire returns with the last one.
func TestRetire(t *testing.T) {
	r := start(t)
	idle, busy := r.hello(), r.hello()
	busy.envelope()
	busy.do("DATA", "354")
	rested, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r.srv.Retire(t.Context(), func() { close(rested) })
	}()
	<-rested
	if !r.refused() {
		t.Error("the socket is open still")
	}
	idle.do("NOOP", "250")
	busy.do("x\r\n.", "250")
	idle.envelope()
	idle.do("DATA", "354")
	idle.do("y\r\n.", "250")
	busy.do("QUIT", "221")
	select {
	case <-done:
		t.Error("Retire returned with a session open")
	default:
	}
	idle.do("NOOP", "250")
	idle.do("QUIT", "221")
	<-done
	if n := len(r.queue.all()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.srv.Serve(t.Context(), 0, l); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("a retired server opened another socket")
	}
}

// TestRetireEnds: a stop does not wait for sessions that Retire waits for.
func TestRetireEnds(t *testing.T) {
	r := start(t)
	c := r.hello()
	ctx, cancel := context.WithCancel(t.Context())
	r.srv.Retire(ctx, cancel)
	c.do("NOOP", "250")
	if err := r.srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	c.expect("421 4.3.2")
}

// TestRetireServesTheBacklog: whoever the kernel has let in is served, though
// nobody had accepted him when the socket was to be closed.
func TestRetireServesTheBacklog(t *testing.T) {
	const waiting = 20
	r := start(t, onConfig(func(c *Config) { c.MaxPerAddress = waiting - 1 }))
	l := listenStalled(t)
	served := make(chan error, 1)
	go func() { served <- r.srv.Serve(context.Background(), 0, l) }()
	<-l.entered
	r.addr = l.Addr().String()
	var clients []*client
	for range waiting {
		clients = append(clients, r.dial())
	}
	rested, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r.srv.Retire(t.Context(), func() { close(rested) })
	}()
	<-rested
	if err := <-served; err != nil {
		t.Error(err)
	}
	if !r.refused() {
		t.Error("the socket is open still")
	}
	for _, c := range clients[:waiting-1] {
		c.expect("220")
		c.do("EHLO client.example", "250")
	}
	clients[waiting-1].expect("421 4.7.0") // the limits are the same
	for _, c := range clients[:waiting-1] {
		c.do("QUIT", "221")
	}
	<-done
}
