// Package socketmap asks servers that speak Postfix' socketmap protocol: a
// request "name key" and its answer, each as a netstring. The tables are declared
// as in Postfix: socketmap:inet:host:port:name, socketmap:unix:/path:name.
//
// A "%s" in the name becomes the service's name, so that one server can tell the
// services apart. Any service whose answer is text can be asked.
package socketmap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

const (
	// maxConns bounds the connections: the protocol has one question at a time
	// on each.
	maxConns = 16
	// dialTime is how long a connection may take.
	dialTime = 5 * time.Second
	// restAfter is for how long a server that could not be reached is not tried
	// again, so that nobody waits for it in line.
	restAfter = 500 * time.Millisecond
)

// Table is a map on a server.
type Table struct {
	network, address string
	name             string // of the map, with %s
	delim            string
	slots            chan struct{}

	mu     sync.Mutex
	idle   []*conn // the one used last comes last
	rest   time.Time
	err    error // why there is a rest
	closed bool
}

type conn struct {
	net.Conn
	r *bufio.Reader
}

var (
	_ table.Backend = (*Table)(nil)
	_ table.Pinger  = (*Table)(nil)
)

// Open reads the source. The server is reached by the first question.
func Open(_ context.Context, c config.Table, o table.Options) (table.Backend, error) {
	t := &Table{delim: o.Delimiter(), slots: make(chan struct{}, maxConns)}
	var err error
	t.network, t.address, t.name, err = parseSource(c.Source, c.Name)
	return t, err
}

// parseSource reads inet:host:port:name, unix:path:name, or a path alone, which
// is how OpenSMTPD's table-socketmap is declared: the map is called after the
// table then.
func parseSource(source, tableName string) (network, address, name string, err error) {
	kind, rest, ok := strings.Cut(source, ":")
	bad := fmt.Errorf("%q is not inet:host:port:name, unix:/path:name or /path", source)
	switch {
	case strings.HasPrefix(source, "/"):
		return "unix", source, tableName, nil
	case !ok:
		return "", "", "", bad
	}
	i := strings.LastIndexByte(rest, ':')
	if i <= 0 {
		return "", "", "", bad
	}
	address, name = rest[:i], rest[i+1:]
	if name == "" || strings.ContainsAny(name, " \t") {
		return "", "", "", fmt.Errorf("%q: the map has no name", source)
	}
	switch kind {
	case "unix":
		if !strings.HasPrefix(address, "/") {
			return "", "", "", fmt.Errorf("%q: the socket is not an absolute path", source)
		}
		return "unix", address, name, nil
	case "inet":
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || port == "" {
			return "", "", "", bad
		}
		return "tcp", address, name, nil
	}
	return "", "", "", bad
}

// Lookup returns the answer as one column.
func (t *Table) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	if s == table.Auth {
		return nil, fmt.Errorf("%w: passwords are not sent to a socketmap", table.ErrUnsupported)
	}
	text, err := t.ask(ctx, strings.ReplaceAll(t.name, "%s", s.String())+" "+key)
	if err != nil {
		return nil, err
	}
	return table.Row{text}, nil
}

// Check asks for each key that an entry could be equal to. Wildcards are the
// server's.
func (t *Table) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	for _, k := range t.candidates(s, key) {
		_, err := t.Lookup(ctx, s, k)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, table.ErrNotFound) {
			return false, err
		}
	}
	return false, nil
}

func (t *Table) candidates(s table.Service, key string) []string {
	switch s {
	case table.MailAddr:
		return table.MailAddrCandidates(key, t.delim)
	case table.Domain:
		return table.DomainCandidates(key)
	}
	return []string{key}
}

// Fetch is not in the protocol.
func (t *Table) Fetch(context.Context, table.Service) ([]table.Row, error) {
	return nil, fmt.Errorf("%w: a socketmap cannot be listed", table.ErrUnsupported)
}

// Ping asks for a key that nobody has. Any answer in order will do.
func (t *Table) Ping(ctx context.Context) error {
	_, err := t.ask(ctx, strings.ReplaceAll(t.name, "%s", table.Alias.String())+" tabard-check.invalid")
	if errors.Is(err, table.ErrNotFound) {
		return nil
	}
	return err
}

// ask puts a question. A connection that the server closed while it was idle is no
// fault: the question is put again, once.
func (t *Table) ask(ctx context.Context, question string) (string, error) {
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	c, used, err := t.connect(ctx, false)
	if err != nil {
		return "", err
	}
	text, err := t.exchange(ctx, c, question)
	if used && closedByPeer(err) && ctx.Err() == nil {
		if c, _, err = t.connect(ctx, true); err != nil {
			return "", err
		}
		text, err = t.exchange(ctx, c, question)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", err
	}
	return parseReply(text)
}

func closedByPeer(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}

// connect returns an idle connection, or a new one.
func (t *Table) connect(ctx context.Context, fresh bool) (c *conn, used bool, err error) {
	t.mu.Lock()
	switch {
	case t.closed:
		t.mu.Unlock()
		return nil, false, os.ErrClosed
	case fresh: // those that are idle are as old as the one that was closed
		for _, old := range t.idle {
			_ = old.Close()
		}
		t.idle = nil
	case len(t.idle) > 0:
		c = t.idle[len(t.idle)-1]
		t.idle = t.idle[:len(t.idle)-1]
		t.mu.Unlock()
		return c, true, nil
	}
	if time.Now().Before(t.rest) {
		err := t.err
		t.mu.Unlock()
		return nil, false, err
	}
	t.mu.Unlock()
	d := net.Dialer{Timeout: dialTime}
	raw, err := d.DialContext(ctx, t.network, t.address)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if ctx.Err() == nil {
			t.rest, t.err = time.Now().Add(restAfter), err
		}
		return nil, false, err
	}
	return &conn{raw, bufio.NewReader(raw)}, false, nil
}

// exchange sends a question and reads the answer. The connection is kept if it is
// in order.
func (t *Table) exchange(ctx context.Context, c *conn, question string) (text string, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	if _, err = io.WriteString(c, netstring(question)); err == nil {
		text, err = readNetstring(c.r)
	}
	if inTime := stop(); err == nil && inTime && c.r.Buffered() == 0 {
		t.keep(c)
		return text, nil
	}
	_ = c.Close() // nothing of it is wanted any more
	return text, err
}

func (t *Table) keep(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = c.Close()
		return
	}
	t.idle = append(t.idle, c)
}

// Close closes the idle connections; the others close when they are answered.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, c := range t.idle {
		_ = c.Close()
	}
	t.idle = nil
	return nil
}

// Address returns the network ("tcp" or "unix") and the address behind the source
// of the table called name.
func Address(source, name string) (network, address string, err error) {
	network, address, _, err = parseSource(source, name)
	return network, address, err
}
