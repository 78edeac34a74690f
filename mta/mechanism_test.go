package mta

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"tabard/lookup"
	"tabard/queue"
)

// scramServer answers AUTH SCRAM-SHA-256 for joe with the password; it may change
// what it says, and it may say that all went well at once.
func scramServer(t *testing.T, password string, change func(string) string, hasty bool) action {
	t.Helper()
	client, err := scram.SHA256.NewClient("joe", password, "")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt", Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		t.Fatal(err)
	}
	return func(c *peerConn, line string) (string, bool) {
		talk := server.NewConversation()
		given, ok := strings.CutPrefix(line, "AUTH SCRAM-SHA-256 ")
		if !ok {
			return "504 5.5.4 what?", true
		}
		for {
			text, err := base64.StdEncoding.DecodeString(given)
			if err != nil {
				return "501 5.5.2 no base64", true
			}
			answer, err := talk.Step(string(text))
			if err != nil {
				return "535 5.7.8 no: " + err.Error(), true
			}
			if talk.Valid() && hasty {
				return "235 2.7.0 welcome", true
			}
			if _, err := io.WriteString(c.Conn, "334 "+encode(change(answer))+"\r\n"); err != nil {
				return "", false
			}
			if given, err = c.in.ReadString('\n'); err != nil {
				return "", false
			}
			given = strings.TrimRight(given, "\r\n")
			if talk.Done() && given == "" {
				return "235 2.7.0 welcome", true
			}
		}
	}
}

func TestSCRAM(t *testing.T) {
	same := func(s string) string { return s }
	swap := func(old, with string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, with, 1) }
	}
	tests := map[string]struct {
		password string
		change   func(string) string
		hasty    bool
		want     string // empty: delivered
	}{
		"right":                  {"s3cret-pass", same, false, ""},
		"wrong":                  {"other", same, false, "5.7.8"},
		"proves nothing":         {"s3cret-pass", same, true, "did not prove"},
		"proves it wrongly":      {"s3cret-pass", swap("v=", "v=AAAA"), false, "server validation failed"},
		"few iterations":         {"s3cret-pass", swap("i=4096", "i=1"), false, "too few iterations"},
		"endless iterations":     {"s3cret-pass", swap("i=4096", "i=2000000000"), false, "at most 1000000"},
		"iterations, no number":  {"s3cret-pass", swap("i=4096", "i=-1"), false, "at most 1000000"},
		"nonce of somebody else": {"s3cret-pass", swap("r=", "r=x"), false, "nonce"},
		"error with a line end":  {"s3cret-pass", func(string) string { return "e=bad\r\nlevel=ERROR msg=forged" }, false, "SCRAM"},
		"empty challenge":        {"s3cret-pass", func(string) string { return "" }, false, "SCRAM"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := authWorld(t, lookup.SchemeTLS, relayName, "LOGIN PLAIN SCRAM-SHA-256", scramServer(t, tt.password, tt.change, tt.hasty))
			res := w.one("x@example.org")
			if tt.want == "" {
				wantResult(t, res, queue.Delivered, 250)
				if !strings.Contains(w.log.String(), `msg="mta auth"`) || !strings.Contains(w.log.String(), "mechanism=SCRAM-SHA-256") {
					t.Errorf("log:\n%s", w.log)
				}
			} else {
				wantResult(t, res, queue.Deferred, 0, tt.want)
			}
			if strings.ContainsAny(res.Text, "\r\x00") || strings.Contains(p.said(), "AUTH PLAIN") {
				t.Errorf("%q; dialogue:\n%s", res.Text, p.said())
			}
			noSecret(t, w, p)
		})
	}
}

// A row that says {PLAIN} has its password sent as it is.
func TestPlainRow(t *testing.T) {
	w, p := authWorld(t, lookup.SchemeTLS, relayName, "SCRAM-SHA-256 PLAIN", nil)
	w.lookup.creds["mylabel"] = lookup.Credentials{User: "joe", Password: "s3cret-pass", Plain: true}
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	if !strings.Contains(p.said(), "AUTH PLAIN ") {
		t.Errorf("dialogue:\n%s", p.said())
	}
}

func TestXOAUTH2(t *testing.T) {
	const token = "ya29.t0ken-value"
	said := "AUTH XOAUTH2 " + encode("user=joe\x01auth=Bearer "+token+"\x01\x01")
	refusal := func(c *peerConn, line string) (string, bool) {
		_, _ = io.WriteString(c.Conn, "334 "+encode(`{"status":"400","schemes":"Bearer"}`)+"\r\n")
		if answer, err := c.in.ReadString('\n'); err != nil || answer != "\r\n" {
			return "500 5.5.2 what?", true
		}
		return "535 5.7.8 bad token " + token + " in " + line, true
	}
	tests := map[string]struct {
		mechanisms string
		answer     action
		want       string
	}{
		"right":       {"LOGIN PLAIN XOAUTH2 SCRAM-SHA-256", say("235 2.7.0 welcome"), ""},
		"refused":     {"XOAUTH2", refusal, "5.7.8 bad token ***"},
		"not offered": {"PLAIN LOGIN", nil, "does not offer AUTH XOAUTH2"},
		"for ever":    {"XOAUTH2", say("334 "), "AUTH XOAUTH2 refused"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := authWorld(t, lookup.SchemeTLS, relayName, tt.mechanisms, tt.answer)
			w.lookup.creds["mylabel"] = lookup.Credentials{User: "joe", Token: token}
			res := w.one("x@example.org")
			if tt.want == "" {
				wantResult(t, res, queue.Delivered, 250)
			} else {
				wantResult(t, res, queue.Deferred, 0, tt.want)
			}
			if tt.want != "does not offer AUTH XOAUTH2" && !strings.Contains(p.said(), said) {
				t.Errorf("dialogue:\n%s", p.said())
			}
			for _, secret := range []string{token, encode(token), said} {
				if strings.Contains(w.log.String()+res.Text, secret) || strings.Contains(p.onWire(), secret) {
					t.Errorf("%q is told", secret)
				}
			}
		})
	}
	w, _ := authWorld(t, lookup.SchemeTLS, relayName, "XOAUTH2", nil)
	wantResult(t, w.one("x@example.org"), queue.Deferred, 0, "they are a password")
}

// insecure-auth, and a pinned certificate, let credentials go where nothing is
// verified; and only that.
func TestInsecureAuth(t *testing.T) {
	for _, cert := range []string{"", "other.example"} {
		w, p := authWorld(t, lookup.SchemeSMTPTLS, cert, "PLAIN", nil)
		w.lookup.mu.Lock()
		w.lookup.route.InsecureAuth = true
		w.lookup.mu.Unlock()
		wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
		if leaked := strings.Contains(p.onWire(), encode("\x00joe\x00s3cret-pass")); leaked != (cert == "") {
			t.Errorf("certificate %q: password on the wire in clear: %t", cert, leaked)
		}
	}
	w, p := authWorld(t, lookup.SchemeSMTPTLS, "other.example", "PLAIN", nil)
	w.lookup.mu.Lock()
	w.lookup.route.Hosts[0].Policy = policyRow(t, fmt.Sprintf("fingerprint=%x", sha256.Sum256(p.tls.Certificates[0].Leaf.Raw)))
	w.lookup.mu.Unlock()
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	noSecret(t, w, p)

	w, p = authWorld(t, lookup.SchemeTLS, "other.example", "PLAIN", nil)
	w.lookup.mu.Lock()
	w.lookup.route.InsecureAuth = true
	w.lookup.mu.Unlock()
	wantResult(t, w.one("x@example.org"), queue.Deferred, 0, "wrong-name")
	noSecret(t, w, p)
}

// A mechanism that the server offers but does not have is passed over; credentials
// that it refuses are not tried once more.
func TestNextMechanism(t *testing.T) {
	for name, tt := range map[string]struct {
		refusals map[string]string // by mechanism
		said     string            // mechanisms that were tried
		want     string            // empty: delivered
	}{
		"unknown":         {map[string]string{"SCRAM-SHA-256": "504 5.5.4 Unrecognized authentication type"}, "SCRAM-SHA-256 PLAIN", ""},
		"as Postfix says": {map[string]string{"SCRAM-SHA-256": "535 5.7.8 Error: authentication failed: Invalid authentication mechanism", "PLAIN": "504 no"}, "SCRAM-SHA-256 PLAIN LOGIN", ""},
		"too weak":        {map[string]string{"SCRAM-SHA-256": "534 5.7.9 Authentication mechanism is too weak"}, "SCRAM-SHA-256 PLAIN", ""},
		"none":            {map[string]string{"SCRAM-SHA-256": "504 one", "PLAIN": "504 two", "LOGIN": "504 three"}, "SCRAM-SHA-256 PLAIN LOGIN", "three"},
		"wrong password":  {map[string]string{"SCRAM-SHA-256": "504 no", "PLAIN": "535 5.7.8 wrong"}, "SCRAM-SHA-256 PLAIN", "wrong"},
		"other password":  {map[string]string{"SCRAM-SHA-256": "534 5.7.9 Application-specific password required"}, "SCRAM-SHA-256", "required"},
		"not now":         {map[string]string{"SCRAM-SHA-256": "454 4.7.0 mechanism is away"}, "SCRAM-SHA-256", "away"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := authWorld(t, lookup.SchemeTLS, relayName, "LOGIN PLAIN SCRAM-SHA-256", func(_ *peerConn, line string) (string, bool) {
				mech := strings.Fields(line)[1]
				if no := tt.refusals[mech]; no != "" {
					return no, true
				}
				return map[string]string{"PLAIN": "235 2.7.0 welcome", "LOGIN": "334 VXNlcm5hbWU6"}[mech], true
			})
			res := w.one("x@example.org")
			if tt.want == "" {
				wantResult(t, res, queue.Delivered, 250)
			} else {
				wantResult(t, res, queue.Deferred, 0, tt.want)
			}
			var tried []string
			for line := range strings.Lines(p.said()) {
				if mech, ok := strings.CutPrefix(line, "AUTH "); ok {
					tried = append(tried, strings.Fields(mech)[0])
				}
			}
			if got := strings.Join(tried, " "); got != tt.said {
				t.Errorf("tried %s, want %s", got, tt.said)
			}
			noSecret(t, w, p)
		})
	}
}
