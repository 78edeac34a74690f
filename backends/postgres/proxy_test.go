package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"tabard/internal/pgtest"
	"tabard/table"
)

// proxy passes connections on to the shared server and, as PgBouncer does,
// refuses those that ask for settings.
type proxy struct {
	net.Listener
	refused, passed atomic.Int32
}

func startProxy(t *testing.T) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &proxy{Listener: l}
	server := fmt.Sprintf("127.0.0.1:%d", pgtest.Shared(t).Port)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn, server)
		}
	}()
	return p
}

func (p *proxy) serve(conn net.Conn, server string) {
	defer conn.Close()
	size := make([]byte, 4)
	if _, err := io.ReadFull(conn, size); err != nil {
		return
	}
	hello := make([]byte, binary.BigEndian.Uint32(size)-4)
	if _, err := io.ReadFull(conn, hello); err != nil {
		return
	}
	if bytes.Contains(hello, []byte("statement_timeout")) {
		p.refused.Add(1)
		no := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: statement_timeout"}
		if b, err := no.Encode(nil); err == nil {
			_, _ = conn.Write(b) // nobody waits for it when this fails
		}
		return
	}
	p.passed.Add(1)
	to, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer to.Close()
	if _, err := to.Write(append(size, hello...)); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(to, conn)
		to.Close()
	}()
	_, _ = io.Copy(conn, to)
}

func TestProxyThatTakesNoSettings(t *testing.T) {
	url, conn := newDB(t)
	exec(t, conn, `INSERT INTO aliases (address, target) VALUES ('root', 'admin')`)
	p := startProxy(t)
	url = strings.Replace(url, fmt.Sprint("127.0.0.1:", pgtest.Shared(t).Port), p.Addr().String(), 1)
	for _, options := range []string{"", "&target_session_attrs=read-write"} {
		b := open(t, url+options)
		healthy(t, b, "through the proxy")
		together(t, b, table.Alias, []string{"a", "b", "c", "d", "e"})
		watch(t, b)
		if n := p.refused.Swap(0); n != 1 {
			t.Errorf("it was asked for settings %d times", n)
		}
		b.Close()
	}
	if p.passed.Load() < 2 {
		t.Error("nothing went through the proxy")
	}
}
