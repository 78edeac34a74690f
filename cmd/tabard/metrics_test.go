package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tabard/internal/metrics"
)

// scrape reads the metrics at an address; nil when nobody serves them.
func scrape(t *testing.T, addr string) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + addr + metrics.Path)
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v\n%s", resp.Status, err, body)
	}
	numbers := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		at := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		if numbers[line[:at]], err = strconv.ParseFloat(strings.TrimSpace(line[at:]), 64); err != nil {
			t.Fatal(err)
		}
	}
	return numbers
}

// TestMetrics: the process serves what the others count, in its sandbox, and a
// reload leaves it alone, moves it, ends it and starts it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s, got := reloadable(t)
	plain, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	with := func(addr string) string { return string(plain) + "metrics " + addr + "\n" }
	first, second := freeAddr(t), freeAddr(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	inUse := regexp.QuoteMeta("metrics on "+busy.Addr().String()) + ".*address already in use"
	s.write(s.config, with(busy.Addr().String()))
	if out := tabardFails(t, exUnavailable, "run", "-c", s.config); !regexp.MustCompile(regexp.QuoteMeta(s.config) + `:\d+:1: ` + inUse).MatchString(out) {
		t.Errorf("run with a port in use says %q", out)
	}
	s.write(s.config, with(first))
	s.run()
	t.Cleanup(s.stop)
	d := dialSMTP(t, s.smtp)
	d.send("EHLO client.example", "250")
	d.sendMail("a@client.example", "b@example.org", numbered(1))
	s.drained()
	got.exactly(t, 1)
	s.wantMetrics(t, first)

	s.reload() // the same address: the process goes on, and so do its counters
	numbers := scrape(t, first)
	if numbers["tabard_smtpd_messages_total"] != 1 || numbers["tabard_smtpd_sessions"] != 1 || numbers[`tabard_process_retiring{process="smtpd"}`] != 1 {
		t.Errorf("after a reload: %v", numbers)
	}
	d.send("QUIT", "221")
	s.oneGeneration()
	eventually(t, "the old ones have ended", func() bool { return scrape(t, first)["tabard_smtpd_sessions"] == 0 })
	if n := scrape(t, first)["tabard_smtpd_messages_total"]; n != 1 {
		t.Errorf("%v messages after the end of the process that took it", n)
	}

	s.write(s.config, with(busy.Addr().String()))
	if out := tabardFails(t, exConfig, "-c", s.config, "reload"); !regexp.MustCompile(inUse).MatchString(out) {
		t.Errorf("reload to a port in use says %q", out)
	}
	files := s.files()
	for _, addr := range []string{second, "", first} {
		text := string(plain)
		if addr != "" {
			text = with(addr)
		}
		s.write(s.config, text)
		s.reload()
		for _, a := range []string{first, second} {
			if serves := scrape(t, a) != nil; serves != (a == addr) {
				t.Errorf("moved to %q: %s serves: %t", addr, a, serves)
			}
		}
	}
	s.oneGeneration()
	eventually(t, "no file is left open", func() bool { return s.files() <= files })
}

// wantMetrics looks at what only the whole server can show.
func (s *server) wantMetrics(t *testing.T, addr string) {
	t.Helper()
	numbers := scrape(t, addr)
	for _, name := range []string{"smtpd", "mta", "queue", "lookup"} {
		if numbers[`tabard_metrics_source_up{process="`+name+`"}`] != 1 {
			t.Errorf("%s does not answer", name)
		}
	}
	for key, want := range map[string]float64{
		"tabard_smtpd_messages_total": 1, `tabard_mta_attempts_total{result="delivered"}`: 1, "tabard_queue_messages": 0,
		`tabard_queue_delivery_seconds_count{kind="relay"}`: 1, "tabard_config_reload_failed": 0,
		`tabard_stage_seconds_count{stage="accept"}`: 1, `tabard_stage_seconds_count{stage="match"}`: 1, `tabard_stage_seconds_count{stage="expand"}`: 1,
		`tabard_stage_seconds_count{stage="body"}`: 1, `tabard_stage_seconds_count{stage="commit"}`: 1, `tabard_stage_seconds_count{stage="schedule-wait"}`: 1,
		`tabard_stage_seconds_count{stage="route"}`: 1, `tabard_stage_seconds_count{stage="connect"}`: 1, `tabard_stage_seconds_count{stage="tls"}`: 0,
		`tabard_stage_seconds_count{stage="transfer"}`: 1, `tabard_stage_seconds_count{stage="ack"}`: 1,
	} {
		if n, ok := numbers[key]; !ok || n != want {
			t.Errorf("%s is %v, %t", key, n, ok)
		}
	}
	if out := tabard(t, "-c", s.config, "queue", "profile"); !regexp.MustCompile(`(?m)^transfer +1 +\d`).MatchString(out) {
		t.Errorf("profile:\n%s", out)
	}
	st, err := s.control().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Processes {
		if p.Name == procMetrics && len(p.Layers) < 3 {
			t.Errorf("metrics is not confined: %+v", p.Layers)
		}
		if numbers[`tabard_process_up{process="`+p.Name+`"}`] != 1 || numbers[`tabard_process_resident_memory_bytes{process="`+p.Name+`"}`] < 1<<20 {
			t.Errorf("%s is not up, or takes no memory", p.Name)
		}
		for _, l := range p.Layers {
			want := 0.0
			if l.Held {
				want = 1
			}
			if n, ok := numbers[`tabard_process_sandbox_layer{layer="`+l.Name+`",process="`+p.Name+`"}`]; (!ok || n != want) && !l.Waived {
				t.Errorf("layer %s of %s: %v, %t; want %v", l.Name, p.Name, n, ok, want)
			}
		}
	}
}
