package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tabard/internal/count"
	"tabard/internal/logging/logtest"
	"tabard/internal/privsep"
	"tabard/lookup"
	"tabard/smtpd"
)

// silent is a server whose supervisor says nothing.
func silent(t *testing.T, o Options) (*Server, string) {
	t.Helper()
	o.Status = func(context.Context) (privsep.Status, error) { return privsep.Status{}, errors.New("away") }
	s := New(o)
	return s, serve(t, s)
}

// fakeSMTPD counts what a test wants: sessions that are open, and messages.
func fakeSMTPD(open, messages *float64) func(context.Context) ([][]float64, error) {
	return func(context.Context) ([][]float64, error) {
		values := zeros()
		for i, d := range smtpd.Counted() {
			switch d.Name {
			case "tabard_smtpd_sessions":
				values[i][0] = *open
			case "tabard_smtpd_messages_total":
				values[i][0] = *messages
			case "tabard_smtpd_accept_seconds":
				values[i][0], values[i][len(values[i])-1] = *messages, 2**messages
			}
		}
		return values, nil
	}
}

func zeros() [][]float64 {
	var values [][]float64
	for _, d := range smtpd.Counted() {
		values = append(values, make([]float64, d.SeriesLen()*d.Width()))
	}
	return values
}

// The processes of one name are one: what those that were replaced still count
// and what those that have ended had counted is part of the sum.
func TestLives(t *testing.T) {
	t.Parallel()
	s, addr := silent(t, Options{})
	check := func(open, messages, up float64) {
		t.Helper()
		want(t, parse(t, get(t, addr)), map[string]float64{
			"tabard_smtpd_sessions": open, "tabard_smtpd_messages_total": messages, "tabard_smtpd_accept_seconds_count": messages,
			"tabard_smtpd_accept_seconds_sum": 2 * messages, `tabard_metrics_source_up{process="smtpd"}`: up,
		})
	}
	check(math.NaN(), math.NaN(), 0)
	open1, messages1, open2, messages2 := 3.0, 10.0, 1.0, 4.0
	endFirst := attach(t, s, procSMTPD, fakeSMTPD(&open1, &messages1), nil)
	check(3, 10, 1)
	endSecond := attach(t, s, procSMTPD, fakeSMTPD(&open2, &messages2), nil)
	check(4, 14, 1)
	messages1, open1 = 12, 1
	check(2, 16, 1)
	endFirst()
	eventually(t, "the first one is gone", func() bool { return parse(t, get(t, addr))["tabard_smtpd_sessions"] == 1 })
	check(1, 16, 1)
	endSecond()
	eventually(t, "the second one is gone", func() bool {
		return parse(t, get(t, addr))[`tabard_metrics_source_up{process="smtpd"}`] == 0
	})
	check(0, 16, 0)
	messages3 := 0.0
	attach(t, s, procSMTPD, fakeSMTPD(&open2, &messages3), nil)
	check(1, 16, 1)
	messages3 = 1
	check(1, 17, 1)
}

// eventually waits until ok, and fails the test if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, late := time.NewTicker(2*time.Millisecond), time.NewTimer(20*time.Second)
	defer tick.Stop()
	defer late.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// A process that lies about what it counts, hangs or fails takes nothing from the
// others, and nothing that it says shows.
func TestHostileProcesses(t *testing.T) {
	t.Parallel()
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) // RFC 5280: no end
	for name, values := range map[string]func(context.Context) ([][]float64, error){
		"nothing":      func(context.Context) ([][]float64, error) { return nil, nil },
		"too much":     func(context.Context) ([][]float64, error) { return append(zeros(), []float64{1}), nil },
		"one short":    func(context.Context) ([][]float64, error) { v := zeros(); v[2] = v[2][1:]; return v, nil },
		"no number":    func(context.Context) ([][]float64, error) { v := zeros(); v[0][0] = math.NaN(); return v, nil },
		"negative":     func(context.Context) ([][]float64, error) { v := zeros(); v[0][0] = -1; return v, nil },
		"a failure":    func(context.Context) ([][]float64, error) { return nil, errors.New("no") },
		"no answer":    func(ctx context.Context) ([][]float64, error) { <-ctx.Done(); return nil, ctx.Err() },
		"a panic":      func(context.Context) ([][]float64, error) { panic("no") },
		"huge numbers": func(context.Context) ([][]float64, error) { v := zeros(); v[0][0] = math.MaxFloat64; return v, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logtest.Buffer
			s, addr := silent(t, Options{Timeout: 200 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
			attach(t, s, procSMTPD, values, nil)
			attach(t, s, procLookup, func(context.Context) ([][]float64, error) { return nil, nil }, meter{lookup.Figures{
				Certificates: []lookup.CertificateFigure{
					{Source: "table t", Name: "a.example", NotAfter: time.Unix(7, 0)}, {Source: "table t", Name: "a.example", NotAfter: time.Unix(8, 0)},
					{Source: "pki", Name: "x\xff\"\n" + strings.Repeat("y", 1000), NotAfter: far},
				},
			}})
			numbers := parse(t, get(t, addr))
			up, sessions := 0.0, math.NaN()
			if name == "huge numbers" {
				up, sessions = 1, math.MaxFloat64
			}
			want(t, numbers, map[string]float64{
				`tabard_metrics_source_up{process="smtpd"}`: up, `tabard_metrics_source_up{process="lookup"}`: 1, "tabard_smtpd_sessions": sessions,
				`tabard_certificate_expiry_timestamp_seconds{key="",name="a.example",table="t"}`: 7, // the first of two
			})
			if text := log.String(); strings.Contains(text, "level=ERROR") {
				t.Errorf("log: %s", text)
			}
		})
	}
}

type meter struct{ f lookup.Figures }

func (m meter) Figures(context.Context) (lookup.Figures, error) { return m.f, nil }

// What no process is called is no process.
func TestStrangers(t *testing.T) {
	t.Parallel()
	s, _ := silent(t, Options{})
	near, far := net.Pipe()
	s.Attach("deliver 1000", near)
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

// Clients can ask for the metrics, and for nothing else.
func TestRequests(t *testing.T) {
	t.Parallel()
	_, addr := silent(t, Options{})
	for _, tt := range []struct {
		request string
		status  int
	}{
		{"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusOK},
		{"GET /metrics?a=b HTTP/1.0\r\n\r\n", http.StatusOK},
		{"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusOK},
		{"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", http.StatusMethodNotAllowed},
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusNotFound},
		{"GET /debug/pprof/ HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusNotFound},
		{"EHLO client.example\r\n", http.StatusBadRequest},
		{"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 2*maxHeader) + "\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, tt.request); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 12)
		if _, err := io.ReadFull(conn, head); err != nil || string(head[9:]) != fmt.Sprint(tt.status) {
			t.Errorf("%.60q: %q, %v; want %d", tt.request, head, err, tt.status)
		}
		_ = conn.Close()
	}
}

// More connections than are served wait, and cost nothing; more requests than are
// answered at once are told so.
func TestBounds(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	s := New(Options{Status: func(ctx context.Context) (privsep.Status, error) {
		asked <- struct{}{}
		select {
		case <-answer:
		case <-ctx.Done():
		}
		return privsep.Status{}, nil
	}, Timeout: 20 * time.Second})
	addr := serve(t, s)
	codes := make(chan int, maxScrapes)
	for range maxScrapes {
		go func() {
			resp, err := http.Get("http://" + addr + Path)
			if err != nil {
				codes <- 0
				return
			}
			_ = resp.Body.Close()
			codes <- resp.StatusCode
		}()
		<-asked
	}
	resp, err := http.Get("http://" + addr + Path)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("one more: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	close(answer)
	for range maxScrapes {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("status %d", code)
		}
	}
	// Idle ones up to the bound keep others waiting, for as long as they may idle.
	var idle []net.Conn
	for range maxConns + 1 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	for _, conn := range idle {
		_ = conn.Close()
	}
	if body := get(t, addr); !strings.Contains(body, "tabard_metrics_source_up") {
		t.Errorf("afterwards: %s", body)
	}
}

// The order of the numbers is that of the descriptions, for every process.
func TestDescriptionsFit(t *testing.T) {
	t.Parallel()
	s, _ := silent(t, Options{})
	seen := map[string]string{}
	for name, src := range s.sources {
		for _, d := range src.descs {
			if d.Help == "" || d.Kind < count.Counter || d.Kind > count.Histogram || strings.HasSuffix(d.Name, "_total") != (d.Kind == count.Counter) {
				t.Errorf("%+v", d)
			}
			series := d.Series
			if len(series) == 0 {
				series = [][]string{nil}
			}
			for _, values := range series {
				if len(values) != len(d.Labels) {
					t.Errorf("%s: %q for %q", d.Name, values, d.Labels)
				}
				one := d.Name + " " + strings.Join(values, " ")
				if other := seen[one]; other != "" {
					t.Errorf("%s is counted by %s and by %s", one, other, name)
				}
				seen[one] = name
			}
		}
	}
}
