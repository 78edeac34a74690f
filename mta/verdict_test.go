package mta

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

// verifier is lookup itself, with one trust anchor for the action "out".
func verifier(t *testing.T, ca *authority) lookup.Outbound {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return realLookup(t, fmt.Sprintf("ca test cert %q\naction \"out\" relay ca test\nmatch from any for any action \"out\"\n", path))
}

// verdictCase is a server's certificate and what is found of it.
type verdictCase struct {
	name string
	cert tls.Certificate
	down bool   // lookup cannot judge
	line string // the end of the log's cert-check line, after the fingerprint
	good bool
}

func verdictCases(t *testing.T, ca *authority) []verdictCase {
	return []verdictCase{
		{name: "good", cert: ca.good(t, relayName), line: "identity=" + relayName, good: true},
		{name: "good, for a wildcard", cert: ca.good(t, "*.example"), line: "identity=" + relayName, good: true},
		{name: "expired", cert: ca.leaf(t, relayName, time.Now().Add(-time.Minute)), line: "reason=expired"},
		{name: "self-signed", cert: (*authority)(nil).good(t, relayName), line: "reason=self-signed"},
		{name: "unknown authority", cert: newAuthority(t).good(t, relayName), line: "reason=unknown-authority"},
		{name: "wrong name", cert: ca.good(t, "other.example"), line: "reason=wrong-name"},
		{name: "NUL in a name", cert: ca.good(t, relayName+"\x00.evil.example"), line: "reason=malformed"},
		{name: "nobody to ask", cert: ca.good(t, relayName), down: true, line: `error="lookup is away"`},
	}
}

// Every kind of route and certificate: the verdict in the log and in the metrics is
// the verifier's, and what became of the message goes by it.
func TestVerdicts(t *testing.T) {
	ca := newAuthority(t)
	judge := verifier(t, ca)
	for _, tt := range verdictCases(t, ca) {
		for _, scheme := range []lookup.Scheme{"smtp+tls", "tls", "smtps", "ssl"} {
			for _, noVerify := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/no-verify=%t", tt.name, scheme, noVerify), func(t *testing.T) {
					w, p := newWorld(t), newPeer(t)
					w.dns.Zone(t, relayName+". A 192.0.2.25")
					w.lookup.verifier = judge
					if tt.down {
						w.lookup.verifyErr = errors.New("lookup is away")
					}
					p.tls, p.onStart = serverTLS(tt.cert), scheme == "smtps"
					w.at("192.0.2.25:25", p.start())
					w.lookup.set(lookup.Route{Hosts: []lookup.RelayURL{{Scheme: scheme, Host: relayName, Port: "25"}}, NoVerify: noVerify})
					want := queue.Delivered
					if scheme != "smtp+tls" && !noVerify && !tt.good {
						want = queue.Deferred
					}
					res := w.start().one("MARK@example.org")
					wantResult(t, res, want, 0)
					if word, failed := strings.CutPrefix(tt.line, "reason="); failed && want == queue.Deferred && scheme != "ssl" && !strings.Contains(res.Text, "not verified: "+word) {
						t.Errorf("result %q does not say %s", res.Text, word)
					}
					checkVerdictLine(t, w.log.String(), tt)
					checkVerdictCount(t, w.mta, tt)
					if strings.Contains(p.onWire(), "MARK") {
						t.Error("in clear")
					}
				})
			}
		}
	}
}

// result is the word for what is found.
func (c *verdictCase) result() string {
	switch {
	case c.down:
		return "unchecked"
	case c.good:
		return "verified"
	}
	return "failed"
}

// checkVerdictCount wants one verdict counted, and that it is the one of the log.
func checkVerdictCount(t *testing.T, m *MTA, tt verdictCase) {
	t.Helper()
	reason, _ := strings.CutPrefix(tt.line, "reason=")
	if tt.result() != "failed" {
		reason = ""
	}
	want := map[string]float64{"out " + tt.result() + " " + reason: 1}
	if got := countOf(m, "tabard_tls_verdicts_total"); !maps.Equal(got, want) {
		t.Errorf("metrics: %v, want %v", got, want)
	}
}

// checkVerdictLine wants one line about the certificate, with the verdict.
func checkVerdictLine(t *testing.T, log string, tt verdictCase) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, `msg="mta cert-check"`) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], " result="+tt.result()+" fingerprint=SHA256:") || !strings.HasSuffix(lines[0], " "+tt.line) {
		t.Errorf("want one line with result=%s and %s:\n%s", tt.result(), tt.line, log)
	}
}
