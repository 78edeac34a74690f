package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"tabard/bench/proctree"
)

// startSink starts a discarding server that is as cheap as can be: it shares
// the cores with what is measured.
func startSink() (*sink, error) { return startSinkAt("127.0.0.1:0") }

func startSinkAt(addr string) (*sink, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &sink{l: l, addr: l.Addr().String(), more: make(chan struct{}, 1)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s, nil
}

func (s *sink) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	br := bufio.NewReaderSize(conn, 32<<10)
	say := func(text string) bool { _, err := conn.Write([]byte(text)); return err == nil }
	ok := say("220 sink.example ESMTP\r\n")
	for ok {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(strings.TrimSpace(line)); {
		case strings.HasPrefix(verb, "EHLO"):
			ok = say("250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n")
		case verb == "DATA":
			ok = say("354 go on\r\n") && discard(br)
			if ok {
				s.count.Add(1)
				select {
				case s.more <- struct{}{}:
				default:
				}
				ok = say("250 2.0.0 gone\r\n")
			}
		case verb == "QUIT":
			say("221 bye\r\n")
			return
		default:
			ok = say("250 2.0.0 ok\r\n")
		}
	}
}

// discard reads a message to its end.
func discard(br *bufio.Reader) bool {
	for {
		line, err := br.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return false
		}
		if len(line) == 3 && string(line) == ".\r\n" {
			return true
		}
	}
}

// errLate is why no more messages are waited for.
var errLate = errors.New("delivered too slowly")

// await waits until n messages came, for 5 minutes at most, and returns the CPU time
// that the server spent meanwhile.
func (s *sink) await(ctx context.Context, n int64, pid int) (time.Duration, error) {
	begin, err := proctree.CPU(pid)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for s.count.Load() < n {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %d of %d messages arrived in time", errLate, s.count.Load(), n)
		case <-s.more:
		}
	}
	end, err := proctree.CPU(pid)
	return end - begin, err
}
