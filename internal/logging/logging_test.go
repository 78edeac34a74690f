package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func TestTextLine(t *testing.T) {
	var out bytes.Buffer
	log, err := New(&out, "smtpd", Options{})
	if err != nil {
		t.Fatal(err)
	}
	log = log.With(SessionKey, "00112233aabbccdd")
	log.Info("smtp connected", "address", "127.0.0.1", "host", "a b\r\nfake=1", "size", 12, "delay", 1500*time.Microsecond)
	log.Warn("smtp\nbad", "err", errors.New(`it "broke"`), slog.Group("tls", "version", "1.3"), "empty", "")
	log.Debug("not shown")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	want := []string{
		fmt.Sprintf(` tabard/smtpd[%d]: 00112233aabbccdd smtp connected address=127.0.0.1 host="a b\r\nfake=1" size=12 delay=2ms`, os.Getpid()),
		fmt.Sprintf(` tabard/smtpd[%d]: warn: 00112233aabbccdd smtp?bad err="it \"broke\"" tls.version=1.3 empty=""`, os.Getpid()),
	}
	if len(lines) != len(want) {
		t.Fatalf("got %d lines:\n%s", len(lines), out.String())
	}
	for i, w := range want {
		if _, rest, _ := strings.Cut(lines[i], "Z"); rest != w {
			t.Errorf("line %d:\n got %s\nwant %s", i, rest, w)
		}
	}
}

func TestJSONAndRefusals(t *testing.T) {
	var out bytes.Buffer
	log, err := New(&out, "queue", Options{Format: "json", Level: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("delivery", SessionKey, "x")
	var m map[string]any
	if err := json.Unmarshal(out.Bytes(), &m); err != nil || m["process"] != "queue" || m[SessionKey] != "x" {
		t.Errorf("%v: %s", err, out.String())
	}
	for _, o := range []Options{{Format: "xml"}, {Level: "loud"}} {
		if _, err := New(&out, "x", o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
}

func BenchmarkTextLine(b *testing.B) {
	log, err := New(discard{}, "smtpd", Options{})
	if err != nil {
		b.Fatal(err)
	}
	log = log.With(SessionKey, "00112233aabbccdd")
	b.ReportAllocs()
	for b.Loop() {
		log.Info("smtp message", "msgid", "0193f2a1b4c5d6e7", "size", 4096, "nrcpt", 1, "proto", "ESMTP")
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
