package mta

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

// authPeer wants a user to log in, and remembers what it was told.
func authWorld(t *testing.T, scheme lookup.Scheme, name, mechanisms string, answer action) (*world, *peer) {
	t.Helper()
	ca := newAuthority(t)
	w, p := newWorld(t), newPeer(t)
	w.dns.Zone(t, relayName+". A 192.0.2.25")
	w.lookup.roots.AddCert(ca.cert)
	w.lookup.creds["mylabel"] = lookup.Credentials{User: "joe", Password: "s3cret-pass"}
	if name != "" {
		p.tls = serverTLS(ca.good(t, name))
	}
	p.onStart = scheme == lookup.SchemeSMTPS
	p.ehlo = append(p.ehlo, "auth "+mechanisms)
	p.on("AUTH", func(c *peerConn, line string) (string, bool) {
		if answer != nil {
			return answer(c, line)
		}
		if strings.HasPrefix(line, "AUTH LOGIN") {
			return "334 VXNlcm5hbWU6", true
		}
		return "235 2.7.0 welcome", true
	})
	// The two lines of LOGIN, and nothing else, look like commands.
	p.on(strings.ToUpper(encode("joe")), say("334 UGFzc3dvcmQ6"))
	p.on(strings.ToUpper(encode("s3cret-pass")), say("235 2.7.0 welcome"))
	w.at("192.0.2.25:25", p.start())
	w.relay(lookup.RelayURL{Scheme: scheme, Label: "mylabel", Host: relayName, Port: "25"})
	return w.start(), p
}

func TestAuth(t *testing.T) {
	for _, scheme := range []lookup.Scheme{lookup.SchemeTLS, lookup.SchemeSMTPS, lookup.SchemeSMTPTLS} {
		for mechanisms, want := range map[string]string{
			"PLAIN LOGIN": "AUTH PLAIN " + encode("\x00joe\x00s3cret-pass"),
			"LOGIN":       "AUTH LOGIN\n" + encode("joe") + "\n" + encode("s3cret-pass"),
		} {
			t.Run(fmt.Sprint(scheme, mechanisms), func(t *testing.T) {
				w, p := authWorld(t, scheme, relayName, mechanisms, nil)
				wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
				wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
				if !strings.Contains(p.said(), want) {
					t.Errorf("dialogue:\n%s", p.said())
				}
				if w.lookup.asked != 1 {
					t.Errorf("credentials were asked for %d times", w.lookup.asked)
				}
				noSecret(t, w, p)
			})
		}
	}
}

func noSecret(t *testing.T, w *world, p *peer) {
	t.Helper()
	for _, secret := range []string{"s3cret-pass", encode("s3cret-pass"), encode("\x00joe\x00s3cret-pass")} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
		if strings.Contains(p.onWire(), secret) {
			t.Errorf("the wire held %q", secret)
		}
	}
}

// Credentials are not even asked for where they must not go.
func TestAuthOnlyOverVerifiedTLS(t *testing.T) {
	for _, scheme := range []lookup.Scheme{lookup.SchemeTLS, lookup.SchemeSMTPTLS, lookup.SchemeSMTP} {
		for _, cert := range []string{"", "other.example"} {
			for _, noVerify := range []bool{false, true} {
				w, p := authWorld(t, scheme, cert, "PLAIN", nil)
				w.lookup.mu.Lock()
				w.lookup.route.NoVerify = noVerify
				w.lookup.mu.Unlock()
				wantResult(t, w.one("x@example.org"), queue.Deferred, 0)
				if w.lookup.asked != 0 || strings.Contains(p.said(), "AUTH") || len(p.got()) != 0 {
					t.Errorf("%s, certificate %q, no-verify %t: asked %d times; dialogue:\n%s",
						scheme, cert, noVerify, w.lookup.asked, p.said())
				}
				noSecret(t, w, p)
			}
		}
	}
}

// Every failure to log in is temporary: the mail is not at fault.
func TestAuthFails(t *testing.T) {
	tests := map[string]struct {
		mechanisms string
		answer     action
		want       string
	}{
		"refused":       {"PLAIN", say("535 5.7.8 wrong"), "5.7.8"},
		"cut":           {"PLAIN", cut, "closed"},
		"challenge":     {"PLAIN", say("334 "), "AUTH PLAIN refused"},
		"no mechanism":  {"CRAM-MD5 GSSAPI", nil, "neither"},
		"echo":          {"PLAIN", func(_ *peerConn, l string) (string, bool) { return "535 5.7.8 no: " + l, true }, "***"},
		"echo of login": {"LOGIN", func(_ *peerConn, l string) (string, bool) { return "535 5.7.8 no: s3cret-pass", true }, "***"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, p := authWorld(t, lookup.SchemeTLS, relayName, tt.mechanisms, tt.answer)
			res := w.one("x@example.org")
			wantResult(t, res, queue.Deferred, 0, tt.want)
			if strings.Contains(res.Text, "s3cret") || strings.Contains(res.Text, encode("\x00joe\x00s3cret-pass")) {
				t.Errorf("the result holds the password: %s", res.Text)
			}
			noSecret(t, w, p)
		})
	}
}

func TestAuthWithoutRow(t *testing.T) {
	w, p := authWorld(t, lookup.SchemeTLS, relayName, "PLAIN", nil)
	delete(w.lookup.creds, "mylabel")
	wantResult(t, w.one("x@example.org"), queue.Deferred, 0, "mylabel")
	if len(p.got()) != 0 {
		t.Error("sent without authentication")
	}
}

// The result says what is wrong with a certificate, and the dialogue ends in the
// handshake.
func TestVerifyReasons(t *testing.T) {
	ca := newAuthority(t)
	for want, cert := range map[string]tls.Certificate{
		"expired":           ca.leaf(t, "192.0.2.3", time.Now().Add(-time.Minute)),
		"wrong-name":        ca.good(t, "192.0.2.4"),
		"unknown-authority": newAuthority(t).good(t, "192.0.2.3"),
	} {
		w, p := newWorld(t), newPeer(t)
		p.tls = serverTLS(cert)
		w.lookup.roots.AddCert(ca.cert)
		w.at("192.0.2.3:25", p.start()).relay(lookup.RelayURL{Scheme: "tls", Host: "192.0.2.3", Port: "25"})
		wantResult(t, w.start().one("x@example.org"), queue.Deferred, 0, "4.7.5", want)
		if p.said() != "EHLO us.example.net\nSTARTTLS" {
			t.Errorf("dialogue:\n%s", p.said())
		}
	}
}

// A lookup that cannot verify is no verification.
func TestVerifyUnavailable(t *testing.T) {
	for scheme, want := range map[lookup.Scheme]queue.Outcome{
		lookup.SchemeTLS: queue.Deferred, lookup.SchemeSMTPTLS: queue.Delivered,
	} {
		ca := newAuthority(t)
		w, p := newWorld(t), newPeer(t)
		p.tls = serverTLS(ca.good(t, "192.0.2.3"))
		w.lookup.verifyErr = errors.New("lookup is away")
		w.at("192.0.2.3:25", p.start()).relay(lookup.RelayURL{Scheme: scheme, Host: "192.0.2.3", Port: "25"})
		wantResult(t, w.start().one("MARK@example.org"), want, 0)
		if strings.Contains(p.onWire(), "MARK") {
			t.Error("in clear")
		}
		if want == queue.Delivered && !strings.Contains(w.log.String(), "result=unchecked") {
			t.Errorf("log:\n%s", w.log)
		}
	}
}

func TestCipherText(t *testing.T) {
	for suite, want := range map[uint16]string{
		tls.TLS_AES_256_GCM_SHA384:                  "TLSv1.3:TLS_AES_256_GCM_SHA384:256",
		tls.TLS_AES_128_GCM_SHA256:                  "TLSv1.3:TLS_AES_128_GCM_SHA256:128",
		tls.TLS_CHACHA20_POLY1305_SHA256:            "TLSv1.3:TLS_CHACHA20_POLY1305_SHA256:256",
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   "TLSv1.3:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:128",
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: "TLSv1.3:TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:256",
	} {
		if got := cipherText(tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: suite}); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
