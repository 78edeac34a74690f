package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"tabard/bench/load"
	"tabard/bench/proctree"
)

const (
	// calmFor is how long a server has to do nearly nothing, and calmShare what that
	// is, as a share of one processor.
	calmFor   = 3 * time.Second
	calmShare = 0.03
	calmLimit = 5 * time.Minute
)

// beside measures new mail in several servers, each with an empty queue and then with
// one that it filled itself: with mail to a destination where nothing listens.
func (b *backlog) beside(ctx context.Context, sink *sink) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	// Another address than the sink's: OpenSMTPD gives up on an address, not a port.
	b.dead = net.JoinHostPort("127.0.0.2", port)
	fmt.Printf("%-13s %9s %12s %12s %11s %9s %9s\n", "server", "waiting", "accepted", "delivered", "CPU/each", "p50", "p99")
	return b.each(ctx, sink.addr, func(name string, t *target) error {
		for _, waiting := range []int{0, b.waiting} {
			if err := b.submit(ctx, name, t, waiting); err != nil {
				return err
			}
			sink.count.Store(0)
			m, accepted, err := b.delivered(ctx, name, t, sink)
			if errors.Is(err, errLate) {
				fmt.Printf("%-13s %9d %10.0f/s %v\n", name, waiting, accepted, err)
				continue
			}
			if err != nil {
				return err
			}
			fmt.Printf("%-13s %9d %10.0f/s %10.0f/s %8d us %9.1f %6.1f ms\n", name, waiting, accepted, m.res.Rate(),
				(m.cpu / time.Duration(b.messages)).Microseconds(), ms(m.res.Percentile(50)), ms(m.res.Percentile(99)))
		}
		return nil
	})
}

// submit fills the queue, and waits until the server has given up on all of it.
func (b *backlog) submit(ctx context.Context, name string, t *target, n int) error {
	if n == 0 {
		return nil
	}
	if _, err := measure(ctx, name, "fill", t.pid, load.Options{
		Addr: t.addr, Sessions: b.sessions[0], Messages: n, Size: b.waitingSize, From: "news@client.example", To: "user@dead.example",
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, calmLimit)
	defer cancel()
	for {
		before, err := proctree.CPU(t.pid)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: still busy with what waits: %w", name, ctx.Err())
		case <-time.After(calmFor):
		}
		after, err := proctree.CPU(t.pid)
		if err != nil {
			return err
		}
		if (after - before).Seconds() < calmShare*calmFor.Seconds() {
			return nil
		}
	}
}
