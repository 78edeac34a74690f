package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tabard/backends/provision"
	"tabard/internal/ldaptest"
	"tabard/internal/selfca"
)

// replacing is a way to put another certificate in the place of one.
type replacing struct {
	name string // that it is served for
	put  func(pair provision.Pair)
}

// TestCertificatesAreReplacedUnderLoad replaces certificates by an SQL UPDATE, by
// ldapmodify and by renaming files, while clients do nothing but shake hands. No
// handshake fails, and the new ones are served soon.
func TestCertificatesAreReplacedUnderLoad(t *testing.T) {
	s, ways := replaceable(t)
	var stop atomic.Bool
	var done atomic.Int64
	var wg sync.WaitGroup
	for n := range 6 {
		way := ways[n%len(ways)]
		wg.Go(func() {
			for !stop.Load() {
				if _, err := leafOf(s.smtps, way.name); err != nil {
					t.Errorf("a handshake for %s failed: %v", way.name, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for round := range 3 {
		for _, way := range ways {
			pair := replacement(t, way.name)
			before := done.Load()
			way.put(pair)
			began := time.Now()
			eventually(t, fmt.Sprintf("replacement %d of %s is served", round+1, way.name), func() bool {
				leaf, err := leafOf(s.smtps, way.name)
				if err != nil {
					t.Fatal(err)
				}
				return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})) == firstBlock(pair.Chain)
			})
			t.Logf("%s: served %v after it was put there, among %d handshakes", way.name, time.Since(began), done.Load()-before)
		}
	}
	stop.Store(true)
	wg.Wait()
	list := tabard(t, "-c", s.config, "cert", "ls")
	for _, line := range []string{`sql\.example .* table mail +in use`, `ldap\.example .* table dir +in use`, `file\.example .* pki +in use`} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(list) {
			t.Errorf("cert ls lacks %s:\n%s", line, list)
		}
	}
	s.exec(`UPDATE certificates SET key = 'broken' WHERE name = 'sql.example'`)
	eventually(t, "the broken row is known", func() bool {
		if _, err := leafOf(s.smtps, "sql.example"); err != nil {
			t.Fatalf("a broken row displaced one that works: %v", err)
		}
		list := tabard(t, "-c", s.config, "cert", "ls")
		return regexp.MustCompile(`(?m)^sql\.example .*broken: `).MatchString(list) && strings.Contains(list, "another one is served")
	})
	if done.Load() == 0 {
		t.Error("there was no load")
	}
}

// replaceable starts a server with a certificate in SQLite, in slapd, and in files.
func replaceable(t *testing.T) (*server, []replacing) {
	t.Helper()
	s := startQuickstart(t)
	dir, err := ldaptest.New(t.Context(), ldaptest.Options{Schemas: []string{"../../docs/schema/tabard.schema"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	files := t.TempDir()
	ways := []replacing{
		{"sql.example", func(p provision.Pair) {
			s.exec(`UPDATE certificates SET chain = ?, key = ? WHERE name = 'sql.example'`, p.Chain, p.Key)
		}},
		{"ldap.example", func(p provision.Pair) { ldapReplace(t, dir, p) }},
		{"file.example", func(p provision.Pair) {
			write(t, filepath.Join(files, "both.pem"), p.Chain+p.Key)
		}},
	}
	s.exec(`INSERT INTO certificates (name, chain, key) VALUES ('sql.example', 'soon', 'soon')`)
	if err := dir.Load(t.Context(), "dn: cn=tls,"+dir.Suffix+"\nobjectClass: device\nobjectClass: tabardTLS\ncn: tls\ntabardTLSName: ldap.example\n"); err != nil {
		t.Fatal(err)
	}
	for _, way := range ways {
		way.put(replacement(t, way.name))
	}
	conf := filepath.Join(files, "ldap.conf")
	write(t, conf, fmt.Sprintf("url %s\nusername %s\npassword %s\nbasedn %s\ncert_filter (&(objectClass=tabardTLS)(tabardTLSName=%%s))\n", dir.URL, dir.RootDN, ldaptest.Password, dir.Suffix))
	s.edit(func(text string) string {
		text = strings.Replace(text, "pki <mail>\n", fmt.Sprintf("pki <mail>\ntable dir ldap:%s\npki file.example cert %q key %q\n", conf, filepath.Join(files, "both.pem"), filepath.Join(files, "both.pem")), 1)
		return strings.Replace(text, "smtps auth <mail>", "smtps pki <mail> pki <dir> pki file.example auth <mail>", 1)
	})
	return s, ways
}

// write puts a file in place by a rename.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// ldapReplace is what an administrator does with ldapmodify.
func ldapReplace(t *testing.T, dir *ldaptest.Server, p provision.Pair) {
	t.Helper()
	block, _ := pem.Decode([]byte(p.Chain))
	ldif := fmt.Sprintf("dn: cn=tls,%s\nchangetype: modify\nreplace: userCertificate;binary\nuserCertificate;binary:: %s\n-\nreplace: tabardTLSKey\ntabardTLSKey:: %s\n-\n",
		dir.Suffix, base64.StdEncoding.EncodeToString(block.Bytes), base64.StdEncoding.EncodeToString([]byte(p.Key)))
	cmd := exec.Command("ldapmodify", "-x", "-H", dir.URL, "-D", dir.RootDN, "-w", ldaptest.Password)
	cmd.Stdin = strings.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ldapmodify: %v\n%s", err, out)
	}
}

func replacement(t *testing.T, name string) provision.Pair {
	t.Helper()
	pair, _, err := selfSigned([]string{name}, selfca.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func firstBlock(text string) string {
	block, _ := pem.Decode([]byte(text))
	return string(pem.EncodeToMemory(block))
}

// leafOf shakes hands and returns the certificate that was served.
func leafOf(addr, name string) (*x509.Certificate, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: waitLong}, Config: &tls.Config{InsecureSkipVerify: true, ServerName: name}}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if leaf.VerifyHostname(name) != nil {
		return nil, fmt.Errorf("served %v", leaf.DNSNames)
	}
	return leaf, nil
}
