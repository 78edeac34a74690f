package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"tabard/bench/load"
)

// scratch returns the directory of one measured server, and what removes it.
func (s *settings) scratch(i int, name string) (string, func(), error) {
	dir, err := os.MkdirTemp(s.dir, "tabard-bench-"+strconv.Itoa(i)+"-"+name+"-")
	if err != nil {
		return "", nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", nil, err
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// each runs f with every server in turn.
func (s *settings) each(ctx context.Context, relayTo string, f func(name string, t *target) error) error {
	for i, name := range s.servers {
		dir, remove, err := s.scratch(i, name)
		if err != nil {
			return err
		}
		defer remove()
		t, err := s.start(ctx, name, dir, relayTo)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		t.dir = dir
		err = f(name, t)
		if stopped := t.stop(); err == nil && stopped != nil {
			err = fmt.Errorf("%s: stop: %w", name, stopped)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ingest measures how fast mail is accepted and made durable. Deliveries are
// held back, so that only acceptance counts.
func (s *settings) ingest(ctx context.Context) error {
	heading("messages", "written/each")
	return s.each(ctx, "", func(name string, t *target) error {
		for _, shape := range s.shapes {
			perConn := 1
			if shape == "many" {
				perConn = 0
			}
			for _, n := range s.sessions {
				before, err := written(t.dir, t.pid)
				if err != nil {
					return err
				}
				m, err := measure(ctx, name, shape, t.pid, load.Options{
					Addr: t.addr, Sessions: n, PerConn: perConn, Messages: s.messages, Size: s.size, From: "load@client.example", To: "user@bench.example",
				})
				if err != nil {
					return err
				}
				after, err := written(t.dir, t.pid)
				if err != nil {
					return err
				}
				m.disk = after - before
				m.print()
			}
		}
		return nil
	})
}

// relay measures accepting, queueing and delivering to a server that discards.
func (s *settings) relay(ctx context.Context) error {
	heading("messages")
	sink, err := startSink()
	if err != nil {
		return err
	}
	defer sink.close()
	return s.each(ctx, sink.addr, func(name string, t *target) error {
		for _, n := range s.sessions {
			sink.count.Store(0)
			begun := time.Now()
			m, err := measure(ctx, name, "relay", t.pid, load.Options{
				Addr: t.addr, Sessions: n, Messages: s.messages, Size: s.size, From: "load@client.example", To: "user@bench.example",
			})
			if err != nil {
				return err
			}
			before := m.cpu
			cpu, err := sink.await(ctx, int64(s.messages), t.pid)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			m.res.Took, m.cpu = time.Since(begun), before+cpu
			m.print()
		}
		return nil
	})
}

// handshake measures TLS handshakes by STARTTLS: full ones, resumed ones where the
// server lets them be, and full ones with a message.
func (s *settings) handshake(ctx context.Context) error {
	heading("handshakes")
	return s.each(ctx, "", func(name string, t *target) error {
		if t.ca == "" {
			return fmt.Errorf("%s has no certificate to measure", name)
		}
		pem, err := os.ReadFile(filepath.Clean(t.ca))
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		for _, shape := range s.shapes {
			for _, n := range s.sessions {
				o := load.Options{
					Addr: t.addr, Sessions: n, PerConn: 1, Messages: s.messages, Handshakes: shape != "message",
					StartTLS: &tls.Config{RootCAs: roots, ServerName: "bench.example"},
					Size:     s.size, From: "load@client.example", To: "user@bench.example",
				}
				if s.classic {
					o.StartTLS.CurvePreferences = []tls.CurveID{tls.X25519}
				}
				if shape == "resumed" {
					o.StartTLS.ClientSessionCache = tls.NewLRUClientSessionCache(0)
				}
				m, err := measure(ctx, name, shape, t.pid, o)
				if err != nil {
					return err
				}
				m.print()
				if shape == "resumed" && m.res.Resumed < m.res.Acked*9/10 {
					fmt.Printf("%-12s resumed only %d of %d sessions\n", name, m.res.Resumed, m.res.Acked)
				}
			}
		}
		return nil
	})
}

// sink is an SMTP server in this process that counts what it discards.
type sink struct {
	l     net.Listener
	addr  string
	count atomic.Int64
	more  chan struct{}
}

func (s *sink) close() { _ = s.l.Close() }
