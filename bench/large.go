package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"tabard/bench/load"
)

// benchLarge sends large messages on many connections at once, to be relayed, and
// watches the memory of the server's processes meanwhile.
func benchLarge(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench large", flag.ContinueOnError)
	s := &settings{}
	sessions := 0
	fs.StringVar(&s.dir, "dir", "", "directory for spools, on the file system to measure; default a temporary one")
	fs.StringVar(&s.key, "key", "ecdsa", "kind of the certificate's key")
	fs.IntVar(&s.messages, "messages", 200, "messages")
	fs.IntVar(&s.size, "size", 50<<20, "bytes per message")
	fs.IntVar(&sessions, "sessions", 200, "connections at once")
	if err := fs.Parse(args); err != nil {
		return err
	}
	sink, err := startSink()
	if err != nil {
		return err
	}
	defer sink.close()
	dir, remove, err := s.scratch(0, "large")
	if err != nil {
		return err
	}
	defer remove()
	t, err := s.runTabard(ctx, dir, func(addr string) string {
		host, port, _ := net.SplitHostPort(addr)
		return fmt.Sprintf(tabardConfig, filepath.Join(dir, "tabard.sock"), dir, host, port, "smtp://"+sink.addr) +
			fmt.Sprintf("smtp max-message-size %d\n", s.size+1<<20)
	})
	if err != nil {
		return err
	}
	return t.during(func() error { return s.large(ctx, t, sink, sessions) })
}

func (s *settings) large(ctx context.Context, t *target, sink *sink, sessions int) error {
	idle, err := memoryOf(t.pid)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	peak := make(chan memory, 1)
	go func() { peak <- watchMemory(watching, t.pid) }()
	begun := time.Now()
	m, err := measure(ctx, "tabard", "large", t.pid, load.Options{
		Addr: t.addr, Sessions: sessions, Messages: s.messages, Size: s.size, From: "load@client.example", To: "user@bench.example",
		Timeout: 10 * time.Minute,
	})
	if err == nil {
		_, err = sink.await(ctx, int64(s.messages), t.pid)
	}
	took := time.Since(begun)
	stop()
	most := <-peak
	if err != nil {
		return err
	}
	mib := float64(s.messages) * float64(s.size) / (1 << 20)
	fmt.Printf("%d messages of %d MiB over %d connections: accepted at %.0f MiB/s, delivered at %.0f MiB/s; memory %s before, %s at most\n",
		s.messages, s.size>>20, sessions, mib/m.res.Took.Seconds(), mib/took.Seconds(), idle, most)
	return nil
}

// watchMemory returns the most that was seen until ctx ended.
func watchMemory(ctx context.Context, pid int) memory {
	most := memory{}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, err := memoryOf(pid); err == nil {
			most = most.max(now)
		}
		select {
		case <-ctx.Done():
			return most
		case <-tick.C:
		}
	}
}

// memory is what processes of a server have, in KiB, by their names.
type memory map[string]int

func (m memory) max(n memory) memory {
	most := memory{}
	for _, one := range []memory{m, n} {
		for name, kib := range one {
			most[name] = max(most[name], kib)
		}
	}
	return most
}

func (m memory) String() string {
	var parts []string
	for _, name := range []string{"all", "smtpd", "queue", "mta", "lookup"} {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]>>10))
	}
	return strings.Join(parts, ", ") + " MiB"
}
