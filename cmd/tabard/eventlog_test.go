package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"tabard/bench/load"
	"tabard/internal/eventlog"
	"tabard/internal/pgtest"
)

// picky is a next hop that has no user called fail.
type picky struct{ sinkSession }

func (picky) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "fail@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	return nil
}

func (picky) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// eventServer runs a server with an event log on SQLite that delivers for box.example
// and relays for example.org. on puts a line for the table in its configuration.
func eventServer(t *testing.T) (s *server, on func(table string)) {
	t.Helper()
	s = newServer(t)
	uid := os.Getuid()
	if uid == 0 {
		uid = 4711 // mail is not delivered as root
	}
	text := s.conf("mx1.example", serveHop(t, func() smtp.Session { return picky{} }), s.smtp) + fmt.Sprintf(`
table homes { "ann" = "%d:%d:/" }
action "box" mda "cat >/dev/null" userbase <homes>
match from any for domain "box.example" action "box"
queue retry 1s
smtp limit max-rcpt 5000
log sql <log> keep 30d
`, uid, uid)
	on = func(table string) {
		s.write(s.config, fmt.Sprintf("table log %q\n", table)+text)
		if out, code := tool(t, "", "-c", s.config, "migrate"); code != 0 {
			t.Fatalf("migrate: %s", out)
		}
	}
	on("sqlite:" + filepath.Join(s.dir, "log.db"))
	s.run()
	t.Cleanup(s.stop)
	return s, on
}

// mails sends one message in a session of its own, whose recipients get these replies.
func (s *server) mails(rcpts ...string) {
	s.t.Helper()
	d := dialSMTP(s.t, s.smtp)
	d.send("EHLO client.example", "250")
	d.send("MAIL FROM:<ann@box.example>", "250")
	for _, r := range rcpts {
		addr, code, _ := strings.Cut(r, " ")
		d.send("RCPT TO:<"+addr+">", code)
	}
	d.send("DATA", "354")
	d.send("Subject: x\r\n\r\nx\r\n.", "250")
	d.send("QUIT", "221")
}

// events is what tabard log prints.
func (s *server) events(args ...string) string {
	s.t.Helper()
	out, _ := tool(s.t, "", append([]string{"-c", s.config, "log"}, args...)...)
	return out
}

// wants waits until tabard log prints lines that match, each of them.
func (s *server) wants(args string, lines ...string) string {
	s.t.Helper()
	out := ""
	defer func() {
		if s.t.Failed() {
			s.t.Logf("tabard log %s: %s", args, out)
		}
	}()
	eventually(s.t, "tabard log "+args+" prints "+strings.Join(lines, ", "), func() bool {
		out = s.events(strings.Fields(args)...)
		for _, l := range lines {
			if !regexp.MustCompile("(?m)^[^ ]+ " + l).MatchString(out) {
				return false
			}
		}
		return true
	})
	return out
}

// TestEventLog: what becomes of mail is rows in the event log of a running server, on
// SQLite and, after a reload, on PostgreSQL, and tabard log finds them. While the
// database is away mail flows; what happens meanwhile is written later, or told of.
func TestEventLog(t *testing.T) {
	t.Parallel()
	pg, err := pgtest.Start(t.Context(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Close() })
	s, on := eventServer(t)
	s.mails("ann@box.example 250", "b@example.org 250", "fail@example.org 250", "x@other.example 550")
	s.foundInEventLog()
	follow := program("log", "-f", "-c", s.config, "--kind", "result")
	lines := newLogBuffer()
	follow.Stdout = lines
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines.await(t, `rejected .*x@other.example`)
	s.mails("later@example.org 250")
	lines.await(t, `relayed .*later@example.org`)
	_ = follow.Process.Kill()
	_ = follow.Wait()
	s.withoutFile()

	name, err := pg.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	on(pg.URL(name))
	s.reload()
	s.mails("ann@box.example 250", "pg@example.org 250", "x@other.example 550")
	s.wants("", "message .*from=<ann@box.example>", "result .*delivered .*to=<ann@box.example>", "result .*relayed .*to=<pg@example.org>", "result .*rejected .*to=<x@other.example>")
	if err := pg.Stop(); err != nil {
		t.Fatal(err)
	}
	flooded := s.whileAway()
	if err := pg.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wants("away@example.org", "result .*relayed .*to=<away@example.org>") // which the flood would take off the end of a listing
	s.accounts(pg.URL(name), flooded)
}

// foundInEventLog asks for the first message in all ways.
func (s *server) foundInEventLog() {
	s.t.Helper()
	all := s.wants("--since 1h",
		"session .*messages=1", "message .*recipients=3", "envelope .*to=<ann@box.example>", "attempt .*ok .*to=<b@example.org>", "attempt .*perm .*550",
		"result .*delivered .*to=<ann@box.example>", "result .*relayed .*to=<b@example.org>", "result .*failed .*to=<fail@example.org>", "result .*rejected .*to=<x@other.example>")
	id := regexp.MustCompile(`message +([0-9a-f]{16}) .*recipients=3`).FindStringSubmatch(all)[1]
	s.wants(id, "session ", "message  "+id, "envelope "+id+`\.0`, "attempt .*b@example.org", "result .*failed", `message .*from=<>`)
	s.wants("--trace "+id, ` *\+0\.[0-9]+s (result .*rejected .*\n *\+0\.[0-9]+s )?message`) // the refusal came before
	s.wants("--result delivered", "result .*delivered .*from=<> .*to=<ann@box.example>")     // the report
	for args, want := range map[string]string{
		"b@example.org":               "b@example.org",
		"@other.example":              "x@other.example",
		"--result failed":             "fail@example.org",
		"--result rejected":           "x@other.example",
		"--kind attempt @box.example": "ann@box.example",
	} {
		out := s.wants(args, ".*"+regexp.QuoteMeta(want))
		for line := range strings.Lines(out) {
			if strings.HasPrefix(args, "--") && !strings.Contains(line, want) {
				s.t.Errorf("log %s: %s", args, line)
			}
		}
	}
	if out := s.events("--until", "1h"); !strings.Contains(out, "no such events") {
		s.t.Errorf("an hour ago: %s", out)
	}
}

// withoutFile takes the SQLite database away, and brings it back.
func (s *server) withoutFile() {
	s.t.Helper()
	path := filepath.Join(s.dir, "log.db")
	if err := os.Rename(path, path+".away"); err != nil {
		s.t.Fatal(err)
	}
	s.mails("unseen@example.org 250")
	eventually(s.t, "status tells that the file is away", func() bool { return strings.Contains(s.eventStatus().Fault, "no such database") })
	if err := os.Rename(path+".away", path); err != nil {
		s.t.Fatal(err)
	}
	s.wants("", "result .*relayed .*to=<unseen@example.org>")
	if st := s.eventStatus(); st.Fault != "" {
		s.t.Errorf("%+v", st)
	}
}

// whileAway sends mail while the database is away, with --long more than can wait, and
// returns how many envelopes that made.
func (s *server) whileAway() (flooded int64) {
	s.t.Helper()
	s.mails("away@example.org 250")
	eventually(s.t, "status tells that it is away", func() bool {
		st := s.eventStatus()
		return st.Fault != "" && len(st.Processes) > 0
	})
	for range rounds(0, 7) {
		const rcpts = 4000
		d := dialSMTP(s.t, s.smtp)
		d.send("EHLO client.example", "250")
		d.send("MAIL FROM:<flood@box.example>", "250")
		for n := range rcpts {
			d.send(fmt.Sprintf("RCPT TO:<n%d@example.org>", n), "250")
		}
		d.send("DATA", "354")
		d.send(strings.TrimSpace(load.Body(200))+"\r\n.", "250")
		d.send("QUIT", "221")
		flooded += rcpts
	}
	s.drained()
	return flooded
}

// accounts checks that all of so many envelopes is in the event log, or in the number of
// those that were lost, and that the counters say the same.
func (s *server) accounts(url string, flooded int64) {
	s.t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var rows, told, marks int64
	eventually(s.t, "all is written or told of", func() bool {
		err := db.QueryRowContext(s.t.Context(), `SELECT
			(SELECT count(*) FROM log_envelopes WHERE sender = 'flood@box.example') + (SELECT count(*) FROM log_attempts WHERE sender = 'flood@box.example') +
			(SELECT count(*) FROM log_results WHERE sender = 'flood@box.example') + (SELECT count(*) FROM log_messages WHERE sender = 'flood@box.example'),
			(SELECT coalesce(sum(count), 0) FROM log_losses WHERE process = 'queue'), (SELECT count(*) FROM log_losses WHERE process = 'queue')`).Scan(&rows, &told, &marks)
		return err == nil && rows+told >= 3*flooded
	})
	st := s.eventStatus()
	s.t.Logf("%d envelopes: %d rows, %d events lost, told of in %d rows; %+v", flooded, rows, told, marks, st)
	if flooded > 0 && (told == 0 || rows == 0 || rows+told > 3*flooded+100) {
		s.t.Errorf("%d envelopes, %d rows and %d events lost", flooded, rows, told)
	}
	for _, p := range st.Processes {
		if p.Process == procQueue && p.Lost != told || flooded == 0 && p.Lost != 0 {
			s.t.Errorf("%s: %d events lost, of which rows tell %d", p.Process, p.Lost, told)
		}
	}
}

// eventStatus is what status says of the event log.
func (s *server) eventStatus() eventlog.Status {
	s.t.Helper()
	out, _ := tool(s.t, "", "-c", s.config, "--json", "status")
	var st status
	if err := json.Unmarshal([]byte(out), &st); err != nil || st.EventLog == nil {
		return eventlog.Status{}
	}
	return *st.EventLog
}
