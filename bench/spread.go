package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/textproto"
	"path/filepath"
	"strings"
	"time"

	"tabard/backends/provision"
	"tabard/bench/load"
	"tabard/bench/proctree"
	"tabard/internal/pgtest"
	"tabard/migrations"
)

// spread measures mail to many destinations, each at an address of its own by a
// row of a relay table, of which a part is dead: half of those refuse connections,
// half take them and say nothing.
type spread struct {
	settings
	destinations, deadPercent, rows int
	table                           string

	sink          *sink
	refused, mute string // ports
	muted         net.Listener
	pg            *pgtest.Server
}

func benchSpread(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench spread", flag.ContinueOnError)
	b := &spread{}
	fs.StringVar(&b.dir, "dir", "", "directory for spools, on the file system to measure; default a temporary one")
	fs.StringVar(&b.pprof, "pprof", "", "where tabard's processes write CPU profiles")
	fs.StringVar(&b.key, "key", "ecdsa", "kind of the certificate's key")
	fs.StringVar(&b.table, "table", "sqlite", "where the relay table is: sqlite or postgres")
	fs.IntVar(&b.messages, "messages", 100_000, "messages to all destinations together")
	fs.IntVar(&b.size, "size", 4096, "bytes per message")
	fs.IntVar(&b.destinations, "destinations", 1000, "destinations")
	fs.IntVar(&b.deadPercent, "dead", 20, "percent of them that are dead")
	fs.IntVar(&b.rows, "rows", 100_000, "rows of the relay table")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if b.destinations < 1 || b.destinations > 60_000 || b.rows < b.destinations {
		return errors.New("want 1 to 60,000 destinations, and as many rows at least")
	}
	if err := b.listen(); err != nil {
		return err
	}
	defer b.close()
	for _, dead := range []bool{false, true} {
		if err := b.run(ctx, dead); err != nil {
			return err
		}
	}
	return b.fanOut(ctx)
}

// listen begins the servers that mail goes to: every address of 127/8 leads there.
func (b *spread) listen() (err error) {
	if b.sink, err = startSinkAt("0.0.0.0:0"); err != nil {
		return err
	}
	if b.muted, err = net.Listen("tcp", "0.0.0.0:0"); err != nil {
		return err
	}
	_, b.mute, _ = net.SplitHostPort(b.muted.Addr().String())
	free, err := freeAddr()
	_, b.refused, _ = net.SplitHostPort(free)
	return err
}

func (b *spread) close() {
	b.sink.close()
	_ = b.muted.Close()
	if b.pg != nil {
		_ = b.pg.Close()
	}
}

// dead reports whether destination i is.
func (b *spread) dead(i int) bool { return i%100 < b.deadPercent }

func (b *spread) url(i int, dead bool) string {
	_, port, _ := net.SplitHostPort(b.sink.addr)
	switch {
	case dead && b.dead(i) && i%2 == 0:
		port = b.refused
	case dead && b.dead(i):
		port = b.mute
	}
	return fmt.Sprintf("smtp://127.%d.%d.1:%s", 1+i/250, 1+i%250, port)
}

const spreadConfig = `hostname bench.example
control %[1]q
table mail sqlite:%[2]s/mail.db
table routes %[3]s
pki <mail>
listen on %[4]s port %[5]s tls
action "out" relay domain <routes>
match from any for any action "out"
queue sqlite:%[2]s/spool/queue.db
smtp limit max-mails 1000000
smtp limit max-connections 5000
`

// server starts Tabard with a relay table.
func (b *spread) server(ctx context.Context, i int, dead bool) (t *target, remove func(), err error) {
	dir, remove, err := b.scratch(i, "spread")
	if err != nil {
		return nil, nil, err
	}
	source, err := b.fill(ctx, dir, dead)
	if err == nil {
		t, err = b.runTabard(ctx, dir, func(addr string) string {
			host, port, _ := net.SplitHostPort(addr)
			return fmt.Sprintf(spreadConfig, filepath.Join(dir, "tabard.sock"), dir, source, host, port)
		})
	}
	if err != nil {
		remove()
	}
	return t, remove, err
}

// fill writes the rows of the relay table and returns how it is declared.
func (b *spread) fill(ctx context.Context, dir string, dead bool) (string, error) {
	var db *sql.DB
	var source, statement string
	switch b.table {
	case "sqlite":
		path := filepath.Join(dir, "mail.db")
		if _, _, err := (provision.Source{Path: path}).Migrate(ctx); err != nil {
			return "", err
		}
		var err error
		if db, err = sql.Open("sqlite", path); err != nil {
			return "", err
		}
		source, statement = "sqlite:"+path, "INSERT INTO relays (match, url) VALUES (?, ?)"
	case "postgres":
		url, err := b.database(ctx)
		if err != nil {
			return "", err
		}
		if db, err = migrations.OpenPostgres(url); err != nil {
			return "", err
		}
		source, statement = url, "INSERT INTO relays (match, url) VALUES ($1, $2)"
	default:
		return "", fmt.Errorf("relay table in %q: want sqlite or postgres", b.table)
	}
	defer func() { _ = db.Close() }()
	return source, b.insert(ctx, db, statement, dead)
}

// database makes a fresh one with our schema.
func (b *spread) database(ctx context.Context) (string, error) {
	if b.pg == nil {
		pg, err := pgtest.Start(ctx, pgtest.Options{})
		if err != nil {
			return "", err
		}
		b.pg = pg
	}
	name, err := b.pg.CreateDatabase(ctx)
	if err != nil {
		return "", err
	}
	url := b.pg.URL(name)
	_, _, err = (provision.Source{Conninfo: url}).Migrate(ctx)
	return url, err
}

func (b *spread) insert(ctx context.Context, db *sql.DB, statement string, dead bool) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	stmt, err := tx.PrepareContext(ctx, statement)
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Close() }()
	for i := range b.rows {
		if _, err := stmt.ExecContext(ctx, domain(i), b.url(i%b.destinations, dead)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// run sends the messages of the dead first, so that they are in the way of the
// others, and measures how long those take from the first accepted to the last
// delivered.
func (b *spread) run(ctx context.Context, dead bool) error {
	t, remove, err := b.server(ctx, 0, dead)
	if err != nil {
		return err
	}
	defer remove()
	var living, gone []int
	for i := range b.destinations {
		if b.dead(i) {
			gone = append(gone, i)
		} else {
			living = append(living, i)
		}
	}
	each := b.messages / b.destinations
	if dead {
		if _, err := b.send(ctx, t, gone, each*len(gone)); err != nil {
			return errors.Join(err, t.stop())
		}
	}
	b.sink.count.Store(0)
	begun := time.Now()
	cpu, err := b.send(ctx, t, living, each*len(living))
	if err == nil {
		var rest time.Duration
		rest, err = b.sink.await(ctx, int64(each*len(living)), t.pid)
		cpu += rest
	}
	took := time.Since(begun)
	if err == nil {
		n := each * len(living)
		what := "without the dead"
		if dead {
			what = fmt.Sprintf("with %d messages to %d dead", each*len(gone), len(gone))
		}
		fmt.Printf("%s: %d messages of %d bytes to %d living destinations, %s: %.1f s, %.0f/s, CPU %d us each\n",
			b.table, n, b.size, len(living), what, took.Seconds(), float64(n)/took.Seconds(), (cpu / time.Duration(n)).Microseconds())
	}
	return errors.Join(err, t.stop())
}

// send sends n messages to destinations in turn, and returns the CPU time that
// the server spent meanwhile.
func (b *spread) send(ctx context.Context, t *target, to []int, n int) (time.Duration, error) {
	m, err := measure(ctx, "tabard", "spread", t.pid, load.Options{
		Addr: t.addr, Sessions: 50, Messages: n, Size: b.size, From: "load@client.example",
		Rcpt: func(n int64) string { return "user@" + domain(to[int(n)%len(to)]) },
	})
	return m.cpu, err
}

// fanOut sends one message to 1,000 recipients: of one domain, and of a domain each.
func (b *spread) fanOut(ctx context.Context) error {
	t, remove, err := b.server(ctx, 1, false)
	if err != nil {
		return err
	}
	defer remove()
	for _, shape := range []struct {
		name     string
		rcpt     func(i int) string
		arriving int64
	}{
		{"of one domain", func(i int) string { return fmt.Sprintf("user%d@%s", i, domain(0)) }, 10},
		{"of as many domains", func(i int) string { return "user@" + domain(i%b.destinations) }, int64(min(1000, b.destinations))},
	} {
		b.sink.count.Store(0)
		before, err := proctree.CPU(t.pid)
		if err != nil {
			return errors.Join(err, t.stop())
		}
		begun := time.Now()
		if err := b.submit(t.addr, shape.rcpt); err != nil {
			return errors.Join(err, t.stop())
		}
		accepted := time.Since(begun)
		if _, err := b.sink.await(ctx, shape.arriving, t.pid); err != nil {
			return errors.Join(err, t.stop())
		}
		after, err := proctree.CPU(t.pid)
		if err != nil {
			return errors.Join(err, t.stop())
		}
		fmt.Printf("one message of %d bytes to 1000 recipients %s: accepted after %.0f ms, delivered after %.0f ms, CPU %d ms\n",
			b.size, shape.name, ms(accepted), ms(time.Since(begun)), (after - before).Milliseconds())
	}
	return t.stop()
}

// submit says one message to 1,000 recipients.
func (b *spread) submit(addr string, rcpt func(int) string) error {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	in := textproto.NewReader(bufio.NewReader(conn))
	say := func(line string, code int) error {
		if line != "" {
			if _, err := fmt.Fprint(conn, line+"\r\n"); err != nil {
				return err
			}
		}
		_, _, err := in.ReadResponse(code)
		return err
	}
	err = errors.Join(say("", 220), say("EHLO load.example", 250), say("MAIL FROM:<load@client.example>", 250))
	for i := 0; i < 1000 && err == nil; i++ {
		err = say("RCPT TO:<"+rcpt(i)+">", 250)
	}
	if err != nil {
		return err
	}
	text := "From: <load@client.example>\r\nSubject: fan-out\r\n\r\n" + strings.TrimSuffix(load.Body(b.size), "\r\n")
	return errors.Join(say("DATA", 354), say(text+"\r\n.", 250), say("QUIT", 221))
}
