package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tabard/bench/load"
	"tabard/bench/proctree"
	"tabard/queue"
	"tabard/queue/sqlite"
)

// backlog measures new mail beside a queue full of mail that waits for another
// attempt, and beside an empty one.
type backlog struct {
	settings
	waiting, waitingSize, rounds int
}

func benchBacklog(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench backlog", flag.ContinueOnError)
	b := &backlog{}
	sessions := 0
	fs.StringVar(&b.dir, "dir", "", "directory for spools, on the file system to measure; default a temporary one")
	fs.StringVar(&b.pprof, "pprof", "", "where tabard's processes write CPU profiles")
	fs.StringVar(&b.key, "key", "ecdsa", "kind of the certificate's key")
	fs.IntVar(&b.waiting, "waiting", 1_000_000, "envelopes that wait, each of a message of its own")
	fs.IntVar(&b.waitingSize, "waiting-size", 1024, "bytes per message that waits")
	fs.IntVar(&b.messages, "messages", 5_000, "new messages in a round")
	fs.IntVar(&b.rounds, "rounds", 8, "rounds of each of the two, by turns")
	fs.IntVar(&b.size, "size", 4096, "bytes per new message")
	fs.IntVar(&sessions, "sessions", 50, "connections at once")
	servers := fs.String("servers", "", "instead, which of tabard, postfix, postfix-tuned and opensmtpd, in order: what waits is then submitted, to a destination that is down")
	if err := fs.Parse(args); err != nil {
		return err
	}
	b.sessions = []int{sessions}
	sink, err := startSink()
	if err != nil {
		return err
	}
	defer sink.close()
	if *servers != "" {
		b.servers = strings.Split(*servers, ",")
		return b.beside(ctx, sink)
	}
	return b.alternate(ctx, sink)
}

// side is a server with an empty queue, or with a full one.
type side struct {
	name string
	t    *target
	took time.Duration // for all rounds
	cpu  time.Duration
}

// alternate measures both by turns, in many short rounds: the speed of a machine that is
// shared with others is another one each minute.
func (b *backlog) alternate(ctx context.Context, sink *sink) (err error) {
	var sides []*side
	for i, waiting := range []int{0, b.waiting} {
		t, remove, err := b.start(ctx, i, waiting, sink)
		if err != nil {
			return err
		}
		defer remove()
		defer func() {
			if stopped := t.stop(); err == nil && stopped != nil {
				err = fmt.Errorf("stop: %w", stopped)
			}
		}()
		sides = append(sides, &side{name: fmt.Sprint(waiting), t: t})
	}
	for range b.rounds {
		for _, s := range sides {
			if err := b.round(ctx, s, sink); err != nil {
				return err
			}
		}
		slices.Reverse(sides)
	}
	for _, s := range sides {
		memory, err := memoryOf(s.t.pid)
		if err != nil {
			return err
		}
		n := b.messages * b.rounds
		fmt.Printf("%9s waiting, all rounds: delivered %.0f/s, CPU %d us each; memory %s\n", s.name, float64(n)/s.took.Seconds(), (s.cpu / time.Duration(n)).Microseconds(), memory)
	}
	return nil
}

// start starts a server beside what waits, and tells when its first 250 came.
func (b *backlog) start(ctx context.Context, i, waiting int, sink *sink) (_ *target, remove func(), err error) {
	dir, remove, err := b.scratch(i, "backlog")
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o700); err != nil {
		return nil, nil, err
	}
	if err := b.fill(ctx, filepath.Join(dir, "spool", "queue.db"), waiting); err != nil {
		return nil, nil, err
	}
	of := *b
	if b.pprof != "" {
		of.pprof = filepath.Join(b.pprof, strconv.Itoa(waiting))
		if err := os.MkdirAll(of.pprof, 0o777); err != nil {
			return nil, nil, err
		}
		if err := os.Chmod(of.pprof, 0o777); err != nil { // for processes of other users
			return nil, nil, err
		}
	}
	t, err := of.startTabard(ctx, dir, sink.addr)
	if err != nil {
		return nil, nil, err
	}
	one := load.Options{Addr: t.addr, Sessions: 1, Messages: 1, Size: b.size, From: "load@client.example", To: "user@bench.example"}
	if _, err := measure(ctx, "tabard", "first", t.pid, one); err != nil {
		return nil, nil, errors.Join(err, t.stop())
	}
	fmt.Printf("%9d waiting: first 250 %.2f s after the start\n", waiting, time.Since(t.begun).Seconds())
	_, err = sink.await(ctx, 1, t.pid)
	sink.count.Store(0)
	if err != nil {
		return nil, nil, errors.Join(err, t.stop())
	}
	return t, remove, nil
}

func (b *backlog) round(ctx context.Context, s *side, sink *sink) error {
	m, accepted, err := b.delivered(ctx, "tabard", s.t, sink)
	if err != nil {
		return err
	}
	sink.count.Store(0)
	s.took += m.res.Took
	s.cpu += m.cpu
	fmt.Printf("%9s waiting: accepted %.0f/s, delivered %.0f/s, CPU %d us each, 250 after %.1f ms p50 %.1f ms p99\n",
		s.name, accepted, m.res.Rate(), (m.cpu / time.Duration(b.messages)).Microseconds(), ms(m.res.Percentile(50)), ms(m.res.Percentile(99)))
	return nil
}

// fill writes what waits, due in an hour at the earliest.
func (b *backlog) fill(ctx context.Context, path string, n int) (err error) {
	store, err := sqlite.Open(ctx, path)
	if err != nil {
		return err
	}
	defer func() {
		if closed := store.Close(); err == nil {
			err = closed
		}
	}()
	body := bytes.Repeat([]byte("0123456789abcde\n"), b.waitingSize/16)
	now := time.Now()
	const group = 1000
	for done := 0; done < n && ctx.Err() == nil; done += group {
		c := &queue.Change{}
		for i := done; i < min(n, done+group); i++ {
			id := queue.MessageID(now.Add(time.Duration(i-n)*time.Millisecond).UnixMilli()<<20 | int64(i&0xfffff))
			next := now.Add(time.Hour + time.Duration(i%14400)*time.Second)
			to := fmt.Sprintf("user%d@%s", i, domain(i%1000))
			c.Insert = append(c.Insert, queue.NewMessage{
				Message: queue.Message{ID: id, Sender: "news@client.example", Size: int64(len(body)), Created: now}, Body: body, Checksum: queue.Checksum(0, body),
				Envelopes: []queue.NewEnvelope{{
					Envelope: queue.Envelope{
						ID: queue.EnvelopeID{Message: id}, Address: to, Recipient: to, Action: "out", Relay: true,
						Created: now, Expires: now.Add(96 * time.Hour), Next: next,
					}, Destination: "out", Lane: queue.LaneUsual,
				}},
			})
		}
		if err := store.Apply(ctx, []*queue.Change{c}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// delivered measures new mail until the last of it is delivered. accepted is the rate at
// which it was taken, per second.
func (b *backlog) delivered(ctx context.Context, name string, t *target, sink *sink) (m measured, accepted float64, err error) {
	begun := time.Now()
	m, err = measure(ctx, name, "relay", t.pid, load.Options{
		Addr: t.addr, Sessions: b.sessions[0], Messages: b.messages, Size: b.size, From: "load@client.example", To: "user@bench.example",
	})
	if err != nil {
		return m, 0, err
	}
	accepted = m.res.Rate()
	cpu, err := sink.await(ctx, int64(b.messages), t.pid)
	if err != nil {
		return m, accepted, fmt.Errorf("%s: %w", name, err)
	}
	m.res.Took = time.Since(begun)
	m.cpu += cpu
	return m, accepted, nil
}

// memoryOf tells what the processes of a server have, and all of them together, with
// their share of what they share.
func memoryOf(pid int) (memory, error) {
	tree, err := proctree.Tree(pid)
	if err != nil {
		return nil, err
	}
	m := memory{}
	for _, p := range tree {
		n, err := pss(p.PID)
		if err != nil {
			return nil, err
		}
		m["all"] += n
	}
	for _, name := range []string{"smtpd", "queue", "mta", "lookup"} {
		found, err := proctree.Find(pid, "tabard: "+name)
		if err != nil {
			return nil, err
		}
		for _, id := range found {
			n, err := pss(id)
			if err != nil {
				return nil, err
			}
			m[name] += n
		}
	}
	return m, nil
}

// pss is a process' part of memory in KiB, with its share of what is shared.
func pss(pid int) (int, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for in := bufio.NewScanner(f); in.Scan(); {
		if rest, ok := strings.CutPrefix(in.Text(), "Pss:"); ok {
			return strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
		}
	}
	return 0, fmt.Errorf("process %d has no Pss", pid)
}
