package smtpd

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
)

// TestStalledHandshakes: a thousand clients that begin TLS and stall fill the
// house, from several addresses, and yet somebody who means it gets in long
// before they are timed out. On Linux all of 127.0.0.0/8 is ours.
func TestStalledHandshakes(t *testing.T) {
	const stalled = 1000
	r := start(t, withTLS(config.TLSImplicit), onConfig(func(c *Config) { c.MaxConnections, c.Timeouts.Handshake = stalled, testPatience }))
	began := time.Now()
	for i := range stalled {
		conn := r.from(fmt.Sprintf("127.0.0.%d", 2+i%4))
		if _, err := io.WriteString(conn, helloPart); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitInside(stalled)
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	var c *client
	for c == nil {
		<-retry.C
		conn := r.from("127.0.0.9")
		tc := tls.Client(conn, r.clientTLS())
		if err := tc.Handshake(); err == nil {
			c = &client{t: t}
			c.use(tc)
			break
		}
		if _ = conn.Close(); time.Since(began) > testPatience {
			t.Fatal("nobody got in")
		}
	}
	if took := time.Since(began); took > testPatience*3/4 {
		t.Errorf("got in after %v", took)
	}
	c.expect("220")
	c.do("EHLO client.example", "250")
	c.envelope()
	r.await("gave way to another connection, because the server is full")
	if n := strings.Count(r.log.String(), "gave way"); n != 1 {
		t.Errorf("%d gave way for one", n)
	}
	r.awaitInside(stalled)
}

// from connects from an address of the loopback network.
func (r *rig) from(addr string) net.Conn {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: testPatience}
	conn, err := d.DialContext(r.t.Context(), "tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// awaitInside waits until so many connections are in.
func (r *rig) awaitInside(want int) {
	r.t.Helper()
	got := -1
	for end := time.Now().Add(testPatience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.srv.door.mu.Lock()
		got = len(r.srv.door.conns)
		r.srv.door.mu.Unlock()
		if got == want {
			return
		}
	}
	r.t.Fatalf("%d connections, want %d", got, want)
}
