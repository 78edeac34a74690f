package posttest

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
)

// logins answers Postfix' questions about passwords, in Dovecot's protocol for
// authentication clients, version 1: the only one that Postfix speaks without a
// library of plugins.
type logins struct {
	listener net.Listener
	users    map[string]string
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool // nil: closed
}

// serveLogins answers on a socket at path, to every user of the system.
func serveLogins(path string, users map[string]string) (*logins, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// smtpd runs as the owner of the queue.
	if err := os.Chmod(path, 0o666); err != nil {
		_ = listener.Close()
		return nil, err
	}
	l := &logins{listener: listener, users: users, conns: make(map[net.Conn]bool)}
	l.wg.Go(l.serve)
	return l, nil
}

func (l *logins) serve() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		if l.conns == nil {
			_ = conn.Close()
		} else {
			l.conns[conn] = true
		}
		l.mu.Unlock()
		l.wg.Go(func() {
			l.answer(conn)
			_ = conn.Close()
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.conns, conn)
		})
	}
}

// answer greets, and says OK or FAIL to each request.
func (l *logins) answer(conn net.Conn) {
	if _, err := io.WriteString(conn, "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0123456789abcdef\nDONE\n"); err != nil {
		return
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if fields[0] != "AUTH" || len(fields) < 3 {
			continue // VERSION and CPID
		}
		verdict := "FAIL"
		user, ok := l.check(fields)
		if ok {
			verdict = "OK"
		}
		if _, err := fmt.Fprintf(conn, "%s\t%s\tuser=%s\n", verdict, fields[1], user); err != nil {
			return
		}
	}
}

// check reads the initial response of PLAIN (RFC 4616).
func (l *logins) check(fields []string) (user string, ok bool) {
	for _, f := range fields {
		text, found := strings.CutPrefix(f, "resp=")
		if !found {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		parts := strings.Split(string(raw), "\x00")
		if err != nil || len(parts) != 3 {
			return "", false
		}
		password, known := l.users[parts[1]]
		return parts[1], known && password == parts[2]
	}
	return "", false
}

func (l *logins) close() {
	_ = l.listener.Close()
	l.mu.Lock()
	for conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
	l.mu.Unlock()
	l.wg.Wait()
}
