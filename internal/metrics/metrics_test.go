package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"tabard/internal/config"
	"tabard/internal/count"
	"tabard/internal/logging/logtest"
	"tabard/internal/privsep"
	"tabard/internal/rpc"
	"tabard/internal/sandbox"
	"tabard/internal/selfca"
	"tabard/lookup"
	"tabard/mta"
	"tabard/queue"
	"tabard/queue/sqlite"
	"tabard/smtpd"
	"tabard/table"
)

// rows is a table that a test changes.
type rows struct {
	mu      sync.Mutex
	certs   map[string]table.Row
	changed func(table.Change)
	watched chan struct{} // closed when changed is there
}

// Watch tells every change before the call that made it returns.
func (r *rows) Watch(ctx context.Context, changed func(table.Change)) error {
	changed(table.Change{})
	r.mu.Lock()
	r.changed = changed
	r.mu.Unlock()
	close(r.watched)
	<-ctx.Done()
	return nil
}

func (r *rows) set(name string, row ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certs[name] = row
	r.changed(table.Change{Service: table.Cert, Key: name})
}

func (r *rows) Lookup(_ context.Context, s table.Service, key string) (table.Row, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if row, ok := r.certs[key]; ok && s == table.Cert {
		return row, nil
	}
	return nil, table.ErrNotFound
}

func (r *rows) Check(context.Context, table.Service, string) (bool, error) {
	return false, table.ErrUnsupported
}

func (r *rows) Fetch(context.Context, table.Service) ([]table.Row, error) {
	return nil, table.ErrUnsupported
}

func (r *rows) Close() error { return nil }

const wholeConf = `table mail postgres:/mail.conf
listen on 127.0.0.1 port 1 tls pki <mail>
action "out" relay
match from any for any action "out"
`

// whole is a server in one process, and its metrics.
type whole struct {
	t      *testing.T
	rows   *rows
	lookup *lookup.Service
	queue  *queue.Queue
	smtp   string // address
	server *Server
	addr   string // of the metrics
	log    logtest.Buffer

	mu     sync.Mutex
	status privsep.Status
	fault  error
}

func newWhole(t *testing.T) *whole {
	t.Helper()
	w := &whole{t: t, rows: &rows{certs: map[string]table.Row{}, watched: make(chan struct{})}, status: exampleStatus()}
	cfg, err := config.Parse("test.conf", []byte(wholeConf), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.lookup, err = lookup.New(t.Context(), lookup.Options{Config: cfg, Hostname: "mx.example.org",
		Open: func(context.Context, config.Table) (table.Backend, error) { return w.rows, nil }})
	if err != nil {
		t.Fatal(err)
	}
	<-w.rows.watched
	store, err := sqlite.Open(t.Context(), t.TempDir()+"/queue.db")
	if err != nil {
		t.Fatal(err)
	}
	if w.queue, err = queue.New(t.Context(), store, w.lookup, queue.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.queue.Close(), w.lookup.Close()); err != nil {
			t.Error(err)
		}
	})
	w.server = New(Options{Log: slog.New(slog.NewTextHandler(&w.log, nil)), Status: func(context.Context) (privsep.Status, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.status, w.fault
	}, Timeout: 5 * time.Second})
	w.startSMTP(cfg)
	worker, release := w.queue.RelayWorker()
	t.Cleanup(release)
	w.attach(procMTA, mta.New(mta.Config{Hostname: "mx.example.org"}, w.lookup, worker).Counts, nil)
	w.attach(procQueue, w.queue.Counts, nil)
	w.attach(procLookup, func(context.Context) ([][]float64, error) { return nil, nil }, w.lookup)
	w.addr = serve(t, w.server)
	return w
}

func (w *whole) startSMTP(cfg *config.Config) {
	w.t.Helper()
	srv, err := smtpd.New(smtpd.FromConfig(cfg, "mx.example.org"), w.lookup, w.queue, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.smtp = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), 0, l) }()
	w.t.Cleanup(func() {
		if err := errors.Join(srv.Shutdown(context.Background()), <-served); err != nil {
			w.t.Error(err)
		}
	})
	w.attach(procSMTPD, srv.Counts, nil)
}

// attach connects what counts with the metrics, and returns what breaks it off.
func (w *whole) attach(name string, values func(context.Context) ([][]float64, error), m lookup.Meter) (cut func()) {
	w.t.Helper()
	return attach(w.t, w.server, name, values, m)
}

func attach(t *testing.T, s *Server, name string, values func(context.Context) ([][]float64, error), m lookup.Meter) (cut func()) {
	t.Helper()
	near, far := net.Pipe()
	srv := rpc.NewServer()
	err := count.Register(srv, values)
	if m != nil {
		err = errors.Join(err, lookup.RegisterMeter(srv, m))
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(context.Background(), far)
	}()
	s.Attach(name, near)
	cut = func() {
		_ = far.Close()
		<-ended
	}
	t.Cleanup(cut)
	return cut
}

// serve serves metrics until the test ends, and returns the address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// exampleStatus has processes of every kind.
func exampleStatus() privsep.Status {
	held := []privsep.Layer{{Name: "seccomp", Held: true}, {Name: "landlock TCP", Reason: "too old"}, sandbox.Layer{Name: "sandbox", Waived: true}, {Name: "made up", Held: true}}
	usage := &privsep.Usage{Memory: 1 << 20, CPU: 1500 * time.Millisecond, Threads: 7}
	var all []privsep.ProcessStatus
	for _, name := range []string{"supervisor", "metrics", "smtpd", "smtpd (old 1)", "mta", "queue", "lookup", "config", "deliver 1000", "deliver -1"} {
		all = append(all, privsep.ProcessStatus{Name: name, PID: 1, State: privsep.StateRunning, Since: time.Unix(1000, 0), Restarts: 2, Layers: held, Usage: usage})
	}
	return privsep.Status{Processes: all, Config: &privsep.ConfigStatus{Loaded: time.Unix(2000, 0), Fault: "no"}}
}

// get returns the body of an answer.
func get(t *testing.T, addr string) string {
	t.Helper()
	resp, err := http.Get("http://" + addr + Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%s, %v, %v\n%s", resp.Status, resp.Header, err, body)
	}
	return string(body)
}

// parse reads the samples of an answer.
func parse(t *testing.T, text string) map[string]float64 {
	t.Helper()
	numbers := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := cutLast(strings.TrimSpace(line))
		n, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			t.Fatalf("line %q", line)
		}
		numbers[key] = n
	}
	return numbers
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// want checks samples; NaN stands for one that must not be there.
func want(t *testing.T, numbers, wanted map[string]float64) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		n, ok := numbers[key]
		if absent := math.IsNaN(wanted[key]); ok == absent || !absent && n != wanted[key] {
			t.Errorf("%s is %v (there: %t), want %v", key, n, ok, wanted[key])
		}
	}
}

// say carries on an SMTP dialogue: commands, and how their replies begin.
func (w *whole) say(dialogue ...string) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.smtp)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	read := make([]byte, 4096)
	for i := 0; i < len(dialogue); i += 2 {
		if i > 0 {
			if _, err := fmt.Fprintf(conn, "%s\r\n", dialogue[i]); err != nil {
				w.t.Fatal(err)
			}
		}
		n, err := conn.Read(read)
		if err != nil || !strings.HasPrefix(string(read[:n]), dialogue[i+1]) {
			w.t.Fatalf("%q is answered with %q, %v", dialogue[i], read[:n], err)
		}
	}
}

// issue makes a certificate that ends in some days.
func issue(t *testing.T, ca *selfca.Authority, name string, days int) (chain, key string, ends time.Time) {
	t.Helper()
	now := time.Now()
	ends = now.Add(time.Duration(days) * 24 * time.Hour).Truncate(time.Second)
	c, k, err := ca.Issue(selfca.Request{Names: []string{name}, Key: selfca.ECDSA, NotBefore: now.Add(-time.Hour), NotAfter: ends})
	if err != nil {
		t.Fatal(err)
	}
	return string(c), string(k), ends
}

// filled is a server in which everything that is counted has happened once.
func filled(t *testing.T) (w *whole, ends time.Time) {
	t.Helper()
	w = newWhole(t)
	ca, err := selfca.New("Test CA", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	chain, key, ends := issue(t, ca, "a.example", 10)
	w.rows.set("a.example", chain, key)
	for range 2 {
		if _, err := w.lookup.Certificate(t.Context(), lookup.CertificateRequest{ServerName: "a.example"}); err != nil {
			t.Fatal(err)
		}
		w.rows.set("a.example", "junk", "") // seen by the second one
	}
	w.say("", "220", "EHLO client.example", "250", "MAIL FROM:<a@b.example>", "250", "RCPT TO:<c@d.example>", "250", "DATA", "354", "x\r\n.", "250")
	return w, ends
}

func TestWholeServer(t *testing.T) {
	t.Parallel()
	w, ends := filled(t)
	numbers := parse(t, get(t, w.addr))
	gone := math.NaN()
	want(t, numbers, map[string]float64{
		"tabard_smtpd_sessions_total":                                                                  1,
		"tabard_smtpd_messages_total":                                                                  1,
		"tabard_smtpd_accept_seconds_count":                                                            1,
		`tabard_smtpd_accept_seconds_bucket{le="+Inf"}`:                                                1,
		`tabard_queue_envelopes{age="0-5m",state="due"}`:                                               1,
		"tabard_queue_messages":                                                                        1,
		`tabard_mta_attempts_total{result="delivered"}`:                                                0,
		`tabard_metrics_source_up{process="lookup"}`:                                                   1,
		`tabard_process_up{process="smtpd"}`:                                                           1,
		`tabard_process_restarts_total{process="queue"}`:                                               2,
		`tabard_process_cpu_seconds_total{process="mta"}`:                                              1.5,
		`tabard_process_cpu_seconds_total{process="deliver"}`:                                          gone,
		`tabard_process_resident_memory_bytes{process="smtpd"}`:                                        2 << 20,
		`tabard_process_resident_memory_bytes{process="deliver"}`:                                      2 << 20,
		`tabard_process_retiring{process="smtpd"}`:                                                     1,
		`tabard_process_retiring{process="mta"}`:                                                       0,
		"tabard_deliver_processes":                                                                     2,
		`tabard_process_start_time_seconds{process="lookup"}`:                                          1000,
		"tabard_config_loaded_timestamp_seconds":                                                       2000,
		"tabard_config_reload_failed":                                                                  1,
		`tabard_process_sandbox_layer{layer="seccomp",process="mta"}`:                                  1,
		`tabard_process_sandbox_layer{layer="landlock TCP",process="mta"}`:                             0,
		`tabard_process_sandbox_layer{layer="made up",process="mta"}`:                                  gone,
		`tabard_process_sandbox_layer{layer="sandbox",process="mta"}`:                                  gone,
		`tabard_table_up{table="mail"}`:                                                                1,
		`tabard_table_errors_total{table="mail"}`:                                                      0,
		`tabard_table_watch{state="told",table="mail"}`:                                                1,
		`tabard_table_watch{state="lost",table="mail"}`:                                                0,
		"tabard_certificates":                                                                          1,
		`tabard_certificate_expiry_timestamp_seconds{key="ecdsa P-256",name="a.example",table="mail"}`: float64(ends.Unix()),
		`tabard_certificate_fault{name="a.example",reason="unreadable",serving="true",table="mail"}`:   1,
		`tabard_tls_verdicts_total{direction="in",reason="",result="verified"}`:                        0,
		`tabard_tls_verdicts_total{direction="out",reason="expired",result="failed"}`:                  0,
	})
	if n := numbers[`tabard_process_goroutines{process="smtpd"}`]; n < 2 {
		t.Errorf("%v goroutines", n)
	}
	if numbers[`tabard_table_answers_total{from="source",table="mail"}`] < 2 {
		t.Errorf("table: %v", numbers)
	}
	if strings.Contains(w.log.String(), "metric") {
		t.Errorf("log:\n%s", w.log.String())
	}
}

// Names, units and help are as Prometheus wants them.
func TestNames(t *testing.T) {
	t.Parallel()
	w, _ := filled(t)
	problems, err := promlint.New(strings.NewReader(get(t, w.addr))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
