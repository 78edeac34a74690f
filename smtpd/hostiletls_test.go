package smtpd

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
)

// hostile is a peer that does not shake hands as it should, and what the log
// says of it.
type hostile struct {
	name string
	do   func(*client)
	want string // in the reason
}

// helloPart is the beginning of a ClientHello that promises more.
const helloPart = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

func write(text string) func(*client) { return func(c *client) { c.write(text) } }

// shake tries a handshake and expects it to fail.
func shake(cfg *tls.Config) func(*client) {
	cfg.InsecureSkipVerify, cfg.ServerName = true, "mx.example.org" // here, as several use it at once
	return func(c *client) {
		if err := tls.Client(c.conn, cfg).Handshake(); err == nil {
			// TLS 1.3: the client is done before the server has seen its part.
			if _, err := io.ReadAll(c.conn); err == nil {
				c.t.Log("the connection ended without an error")
			}
		}
	}
}

func hostiles(t *testing.T) []hostile {
	hello := string(clientHello(t))
	sslv3 := "\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00" + strings.Repeat("r", 32) + "\x00\x00\x02\x00\x0a\x01\x00"
	return []hostile{
		{"says nothing", func(*client) {}, "\"tls: timeout\""},
		{"stalls in its hello", write(helloPart), "\"tls: timeout\""},
		{"stalls after its hello", write(hello), "\"tls: timeout\""},
		{"drips", drip(helloPart + strings.Repeat("\x00", 500)), "\"tls: timeout\""},
		{"SSLv2", write("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + strings.Repeat("\x07", 37)), "SSLv2"},
		{"HTTP", write("GET / HTTP/1.1\r\nHost: mx.example.org\r\n\r\n"), "does not look like a TLS handshake"},
		{"SMTP", write("EHLO x\r\n"), "does not look like a TLS handshake"},
		{"closes at once", closing, "connection closed during the handshake"},
		{"closes in its hello", func(c *client) { c.write(helloPart); closing(c) }, "connection closed during the handshake"},
		{"closes after its hello", func(c *client) { c.write(hello); closing(c) }, "during the handshake"},
		{"resets", resetting, "connection reset during the handshake"},
		{"SSLv3 only", write(sslv3), "unsupported versions"},
		{"TLS 1.0 and 1.1 only", shake(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), "unsupported versions"},
		{"no cipher of ours", shake(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA256}}), "no cipher suite"},
		{"huge message", write("\x16\x03\x01\x00\x04\x01\xff\xff\xff"), "exceeds maximum"},
		{"record too long", write("\x16\x03\x01\xff\xff\x01"), "oversized record"},
		{"empty records", write(strings.Repeat("\x16\x03\x01\x00\x00", 100)), "unexpected message"},
		{"alert first", write("\x15\x03\x01\x00\x02\x02\x28"), "tls: "},
		{"junk in the hello", write("\x16\x03\x01\x00\x08\x01\x00\x00\x04junk"), "tls: "},
		{"huge certificate", shake(&tls.Config{Certificates: []tls.Certificate{hugeChain(t)}}), "exceeds maximum"},
		{"certificate that is none", shake(&tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{brokenCert(t)}}), "failed to parse client certificate"},
		{"renegotiates", renegotiate, "unexpected handshake message"},
	}
}

// drip sends a byte every millisecond.
func drip(text string) func(*client) {
	return func(c *client) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range len(text) {
			<-tick.C
			if _, err := io.WriteString(c.conn, text[i:i+1]); err != nil {
				return
			}
		}
	}
}

func closing(c *client) { _ = c.conn.Close() }

// resetting ends the connection with a reset.
func resetting(c *client) {
	c.write(helloPart)
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.conn.Close()
}

// recorder keeps what goes through a connection.
type recorder struct {
	net.Conn
	in, out bytes.Buffer
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.in.Write(p[:n])
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) {
	r.out.Write(p)
	return r.Conn.Write(p)
}

// clientHello is a whole one, as a record.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer func() { _ = ours.Close() }()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "mx.example.org", MaxVersion: tls.VersionTLS12}).Handshake()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(ours, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(ours, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

func hugeChain(t *testing.T) tls.Certificate {
	t.Helper()
	cert := *newIssuer(t, "CA").client(t, nil)
	for range 1000 {
		cert.Certificate = append(cert.Certificate, cert.Certificate[0])
	}
	return cert
}

func brokenCert(t *testing.T) tls.Certificate {
	t.Helper()
	cert := *newIssuer(t, "CA").client(t, nil)
	cert.Certificate = [][]byte{cert.Certificate[0], []byte("junk")}
	return cert
}

// renegotiate shakes hands with TLS 1.2 and sends another ClientHello inside.
// crypto/tls cannot do that as a client, so the record is made by hand (RFC 5246
// section 6.3, RFC 5288 section 3).
func renegotiate(c *client) {
	c.t.Helper()
	rec := &recorder{Conn: c.conn}
	var secrets bytes.Buffer
	tc := tls.Client(rec, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.org", MaxVersion: tls.VersionTLS12, KeyLogWriter: &secrets,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	var random, master []byte
	if _, err := fmt.Sscanf(secrets.String(), "CLIENT_RANDOM %x %x", &random, &master); err != nil {
		c.t.Fatal(err)
	}
	serverRandom := rec.in.Bytes()[11:43]
	keys := prf(master, append([]byte("key expansion"), append(bytes.Clone(serverRandom), random...)...), 40)
	block, err := aes.NewCipher(keys[:16])
	if err != nil {
		c.t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		c.t.Fatal(err)
	}
	length := binary.BigEndian.Uint16(rec.out.Bytes()[3:])
	hello := rec.out.Bytes()[5 : 5+length]
	// Our second record under these keys: the first was Finished.
	number := []byte{0, 0, 0, 0, 0, 0, 0, 1}
	head := append(bytes.Clone(number), 22, 3, 3, byte(len(hello)>>8), byte(len(hello)))
	sealed := gcm.Seal(bytes.Clone(number), append(bytes.Clone(keys[32:36]), number...), hello, head)
	_, err = c.conn.Write(append([]byte{22, 3, 3, byte(len(sealed) >> 8), byte(len(sealed))}, sealed...))
	if err != nil {
		c.t.Fatal(err)
	}
}

// prf is TLS 1.2's (RFC 5246 section 5), for one label and seed.
func prf(secret, seed []byte, n int) []byte {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	var out []byte
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}

// TestHostileTLS: whatever a peer does instead of a handshake costs bounded
// time, one line in the log, and nothing of anybody else's.
func TestHostileTLS(t *testing.T) {
	for _, tt := range hostiles(t) {
		for _, mode := range []config.TLSMode{config.TLSImplicit, config.TLSStart} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, mode), func(t *testing.T) {
				t.Parallel()
				r := start(t, withTLS(mode), onListener(func(l *Listener) { l.Verify = config.VerifyOptional }),
					onConfig(func(c *Config) { c.Timeouts.Handshake = 300 * time.Millisecond }))
				c := r.dial()
				if mode == config.TLSStart {
					c.expect("220")
					c.do("EHLO client.example", "250")
					c.do("STARTTLS", "220")
				}
				tt.do(c)
				r.await("smtp disconnected")
				var lines []string
				for line := range strings.Lines(r.log.String()) {
					if strings.Contains(line, "tls: ") || strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
						lines = append(lines, line)
					}
				}
				if len(lines) != 1 || !strings.Contains(lines[0], `msg="smtp disconnected"`) || !strings.Contains(lines[0], tt.want) || len(lines[0]) > 500 {
					t.Errorf("want one line with %q:\n%s", tt.want, r.log)
				}
				good(r, mode)
			})
		}
	}
}

// good sends a message over TLS.
func good(r *rig, mode config.TLSMode) {
	r.t.Helper()
	var c *client
	if mode == config.TLSImplicit {
		c = r.dial()
		c.startTLS(r.clientTLS())
		c.expect("220")
		c.do("EHLO client.example", "250")
	} else {
		c = r.secure()
	}
	c.envelope()
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	c.do("QUIT", "221")
}
