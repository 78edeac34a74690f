// Command bench measures Tabard beside other servers on this machine, in one
// run: durable ingest, end-to-end relay, TLS handshakes, and look-ups in tables. It
// prints one line per server and shape: rate, CPU of all the server's processes per message, and
// percentiles of the time to the 250. See bench/README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tabard/bench/load"
	"tabard/bench/proctree"
)

// settings are the command line's.
type settings struct {
	dir      string
	servers  []string
	sessions []int
	messages int
	size     int
	shapes   []string
	pprof    string
	key      string // kind of the servers' keys
	classic  bool   // key exchange by X25519 only
	events   bool   // Tabard keeps an event log
	dead     string // where mail for dead.example cannot be delivered; empty: no such mail
}

func main() {
	if code, ok := hidden(os.Args[1:]); ok {
		os.Exit(code)
	}
	if err := run(os.Args[1:]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: bench ingest|relay|backlog|large|handshake|spread|tables|sni [flags]")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	what := args[0]
	if what == "sni" {
		return benchSNI(ctx, args[1:])
	}
	if what == "spread" {
		return benchSpread(ctx, args[1:])
	}
	if what == "backlog" {
		return benchBacklog(ctx, args[1:])
	}
	if what == "large" {
		return benchLarge(ctx, args[1:])
	}
	if what == "tables" {
		return benchTables(ctx, args[1:])
	}
	s, err := parse(args)
	if err != nil {
		return err
	}
	switch what {
	case "ingest":
		return s.ingest(ctx)
	case "relay":
		return s.relay(ctx)
	case "handshake":
		return s.handshake(ctx)
	}
	return fmt.Errorf("unknown measurement %q; want ingest, relay, backlog, large, handshake, spread, tables or sni", what)
}

func parse(args []string) (*settings, error) {
	fs := flag.NewFlagSet("bench "+args[0], flag.ContinueOnError)
	s := &settings{}
	servers := fs.String("servers", "null,tabard,postfix", "which of null, null-remote (its key in another process), null-session (with session tickets), files (a synced file per message and nothing else), tabard, tabard-log (with an event log on SQLite), postfix, postfix-tuned (for relay) and opensmtpd, in order; several times the same is fine")
	sessions := fs.String("sessions", "1,10,50,200", "connections at once")
	shapes := fs.String("shapes", defaultShapes(args[0]), "ingest: one message per connection, many; handshake: full, resumed, message (full, with a message)")
	fs.BoolVar(&s.classic, "classic", false, "clients offer no post-quantum key exchange, which OpenSSL 3.0 does not know")
	fs.StringVar(&s.key, "key", "ecdsa", "kind of the servers' keys: ecdsa or rsa")
	fs.StringVar(&s.dir, "dir", "", "directory for spools, on the file system to measure; default a temporary one")
	fs.IntVar(&s.messages, "messages", 10000, "messages (or handshakes) per measurement")
	fs.IntVar(&s.size, "size", 4096, "bytes per message")
	fs.StringVar(&s.pprof, "pprof", "", "where tabard's processes write CPU profiles")
	if err := fs.Parse(args[1:]); err != nil {
		return nil, err
	}
	s.servers, s.shapes = strings.Split(*servers, ","), strings.Split(*shapes, ",")
	for f := range strings.SplitSeq(*sessions, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("sessions %q: want numbers", *sessions)
		}
		s.sessions = append(s.sessions, n)
	}
	return s, nil
}

func defaultShapes(what string) string {
	if what == "handshake" {
		return "full"
	}
	return "one,many"
}

// measured is one line of the table.
type measured struct {
	server, shape string
	sessions      int
	res           load.Result
	cpu           time.Duration
	disk          int64 // bytes; -1: not measured
}

func (m measured) print() {
	per := time.Duration(0)
	if m.res.Acked > 0 {
		per = m.cpu / time.Duration(m.res.Acked)
	}
	fmt.Printf("%-13s %-10s %8d %10.0f/s %8d us %9.1f %9.1f %9.1f ms", m.server, m.shape, m.sessions, m.res.Rate(), per.Microseconds(),
		ms(m.res.Percentile(50)), ms(m.res.Percentile(99)), ms(m.res.Percentile(100)))
	if m.disk >= 0 && m.res.Acked > 0 {
		fmt.Printf(" %9.1f KiB", float64(m.disk)/1024/float64(m.res.Acked))
	}
	fmt.Println()
}

func heading(unit string, more ...string) {
	fmt.Printf("%-13s %-10s %8s %12s %11s %9s %9s %12s", "server", "shape", "sessions", unit, "CPU/each", "p50", "p99", "worst")
	for _, m := range more {
		fmt.Printf(" %13s", m)
	}
	fmt.Println()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// measure runs one load against a server whose root process is pid.
func measure(ctx context.Context, name, shape string, pid int, o load.Options) (measured, error) {
	before, err := proctree.CPU(pid)
	if err != nil {
		return measured{}, err
	}
	res, err := load.Run(ctx, o)
	if err != nil {
		return measured{}, fmt.Errorf("%s, %d sessions: %w", name, o.Sessions, err)
	}
	after, err := proctree.CPU(pid)
	return measured{name, shape, o.Sessions, res, after - before, -1}, err
}
