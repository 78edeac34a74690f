package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"

	"tabard/backends/provision"
	"tabard/lookup"
)

// dkimTool runs commands, in this process, on a configuration that signs mail.
type dkimTool struct {
	t    *testing.T
	dir  string
	conf string
}

func newDKIMTool(t *testing.T) *dkimTool {
	t.Helper()
	d := &dkimTool{t: t, dir: t.TempDir()}
	d.conf = filepath.Join(d.dir, "conf")
	text := fmt.Sprintf(`table mail "sqlite:%[1]s/mail.db"
custody master-key "%[1]s/master.key"
hostname mx.example
queue "sqlite:%[1]s/queue.db"
action "out" relay dkim <mail>
match from any for any action "out"
%[2]s`, d.dir, rootNote)
	if err := os.WriteFile(d.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must("migrate")
	d.must("seal", "new-key")
	return d
}

// run returns what a command prints, and its error.
func (d *dkimTool) run(args ...string) (out, notes string, err error) {
	var stdout, stderr bytes.Buffer
	root := newRoot()
	root.SetArgs(append(args, "-c", d.conf))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetIn(strings.NewReader(""))
	err = root.Execute()
	return stdout.String(), stderr.String(), err
}

func (d *dkimTool) must(args ...string) string {
	d.t.Helper()
	out, _, err := d.run(args...)
	if err != nil {
		d.t.Fatalf("tabard %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// zone is the TXT records of a zone file, by name.
func zone(t *testing.T, text string) map[string][]string {
	t.Helper()
	records := make(map[string][]string)
	parser := dns.NewZoneParser(strings.NewReader(text), "", "")
	parser.SetDefaultTTL(3600)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		name := strings.TrimSuffix(rr.Header().Name, ".")
		records[name] = append(records[name], strings.Join(rr.(*dns.TXT).Txt, ""))
	}
	if err := parser.Err(); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return records
}

// signed signs a message as mta does: with handles from lookup.
func (d *dkimTool) signed(domain string) []byte {
	d.t.Helper()
	cfg, err := loadConfig(d.conf)
	if err != nil {
		d.t.Fatal(err)
	}
	text := []byte("From: a@" + domain + "\r\nSubject: x\r\n\r\nhello\r\n")
	err = withService(cfg, d.conf, func(ctx context.Context, s *lookup.Service) error {
		keys, err := s.DKIM(ctx, lookup.DKIMRequest{Action: "out", Domain: domain})
		for _, k := range keys {
			signer, err := lookup.DKIMSigner(ctx, s, k)
			if err != nil {
				return err
			}
			var out bytes.Buffer
			if err := dkim.Sign(&out, bytes.NewReader(text), &dkim.SignOptions{Domain: k.Domain, Selector: k.Selector, Signer: signer, Hash: crypto.SHA256}); err != nil {
				return err
			}
			text = out.Bytes()
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// Mail that is signed by a key of `dkim add` verifies by the records that it and
// `dkim record` print, before and after the key is sealed anew.
func TestDKIMAddSigns(t *testing.T) {
	t.Parallel()
	d := newDKIMTool(t)
	printed := d.must("dkim", "add", "Bücher.example", "S1", "--seal")
	printed += d.must("dkim", "add", "bücher.example", "ed", "--type", "ed25519")
	if again := d.must("dkim", "record", "xn--bcher-kva.example"); len(zone(t, again)) != 2 || !strings.Contains(printed, zone(t, again)["ed._domainkey.xn--bcher-kva.example"][0]) {
		t.Errorf("added:\n%s\nrecorded:\n%s", printed, again)
	}
	var one []provision.DKIMRecord
	if err := json.Unmarshal([]byte(d.must("dkim", "record", "bücher.example", "s1", "--json")), &one); err != nil || len(one) != 1 || len(one[0].Strings) != 2 || one[0].Value != strings.Join(one[0].Strings, "") {
		t.Errorf("as JSON: %+v, %v", one, err)
	}
	records := zone(t, printed)
	verify := func() {
		t.Helper()
		found, err := dkim.VerifyWithOptions(bytes.NewReader(d.signed("xn--bcher-kva.example")), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
			if r := records[name]; len(r) == 1 {
				return r, nil
			}
			return nil, &net.DNSError{Name: name, IsNotFound: true}
		}})
		if err != nil || len(found) != 2 || found[0].Err != nil || found[1].Err != nil {
			t.Errorf("%+v, %v", found, err)
		}
	}
	verify()
	// The old master key leaves the file; no key is lost.
	if out := d.must("seal", "rotate", "--forget"); !strings.HasPrefix(out, "1 sealed under") || !strings.HasSuffix(out, ", 1 left as they were\n") {
		t.Error(out)
	}
	if ring, err := os.ReadFile(filepath.Join(d.dir, "master.key")); err != nil || strings.Count(string(ring), "\n") != 4 {
		t.Errorf("%d lines of master keys, %v", strings.Count(string(ring), "\n"), err)
	}
	verify()
	if out := d.must("check"); out != "configuration OK\n" {
		t.Error(out)
	}
}

// A key in a file may be sealed, too: its master key stays, and where nobody can tell,
// all stay.
func TestSealForgetsNoKeyOfAFile(t *testing.T) {
	t.Parallel()
	d := newDKIMTool(t)
	cfg, err := loadConfig(d.conf)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sealer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	key, err := provision.NewDKIMKey(provision.DKIMEd25519, 0)
	if err == nil {
		key, err = s.SealDKIM(key)
	}
	file := filepath.Join(d.dir, "a.key")
	if err == nil {
		err = os.WriteFile(file, []byte(key), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.must("dkim", "add", "a.example", "f", "--key-ref", file)
	keys := func() int {
		text, err := os.ReadFile(cfg.Custody.MasterKey)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n")/2 - 1
	}
	d.must("seal", "rotate", "--forget")
	if keys() != 2 {
		t.Errorf("%d master keys; want the new one and that of the file", keys())
	}
	if out := d.must("dkim", "record", "a.example"); len(zone(t, out)) != 1 {
		t.Error(out)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.run("seal", "rotate", "--keep-key", "--forget"); err == nil || !strings.Contains(err.Error(), "dkim f._domainkey.a.example: open "+file) || keys() != 2 {
		t.Errorf("a file that is gone: %v, %d master keys", err, keys())
	}
	if _, _, err := d.run("dkim", "record", "a.example", "f"); err == nil || !strings.Contains(err.Error(), "selector f of a.example: ") {
		t.Errorf("a record that cannot be made: %v", err)
	}
}

func TestDKIMAddRefuses(t *testing.T) {
	t.Parallel()
	d := newDKIMTool(t)
	if err := os.WriteFile(filepath.Join(d.dir, "bad.pem"), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"rsa or ed25519":            {"--type", "dsa"},
		"1024 to 4096":              {"--bits", "512"},
		"--bits is of rsa keys":     {"--type", "ed25519", "--bits", "2048"},
		"[key key-ref type]":        {"--type", "rsa", "--key", "x"},
		"no such file":              {"--key", d.dir + "/none"},
		"private key is not PKCS#8": {"--key", d.dir + "/bad.pem"},
		"open " + d.dir + "/none":   {"--key-ref", d.dir + "/none"},
		`domain "*.example"`:        {"*.example"},
	} {
		if strings.HasPrefix(args[0], "--") {
			args = append([]string{"z.example"}, args...)
		}
		if out, _, err := d.run(append([]string{"dkim", "add", args[0], "s"}, args[1:]...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %q\n%s", args, err, want, out)
		}
	}
	if _, _, err := d.run("dkim", "record", "z.example"); err == nil || !strings.Contains(err.Error(), "no such row") {
		t.Errorf("something was stored: %v", err)
	}
}

// What a row is and what is wrong with it is told by ls and by check.
func TestDKIMList(t *testing.T) {
	t.Parallel()
	d := newDKIMTool(t)
	d.must("dkim", "add", "b.example", "s", "--type", "ed25519", "--seal")
	out, notes, err := d.run("dkim", "add", "b.example", "S", "--type", "ed25519")
	if err != nil || len(zone(t, out)) != 1 || !strings.Contains(notes, "s._domainkey.b.example had is replaced") {
		t.Errorf("replaced: %q, %q, %v", out, notes, err)
	}
	d.must("dkim", "add", "c.example", "s", "--bits", "1024")
	gone := filepath.Join(d.dir, "gone.key")
	key, err := provision.NewDKIMKey(provision.DKIMEd25519, 0)
	if err == nil {
		err = os.WriteFile(gone, []byte(key), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.must("dkim", "add", "d.example", "s2", "--key-ref", gone)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	var all []dkimInfo
	if err := json.Unmarshal([]byte(d.must("dkim", "ls", "--json")), &all); err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	state := all[2].State
	all[2].State = ""
	for i, want := range []dkimInfo{{"b.example", "s", "ed25519", 256, "plain", "in use"}, {"c.example", "s", "rsa", 1024, "plain", "in use"}, {"d.example", "s2", "", 0, "file", ""}} {
		if all[i] != want {
			t.Errorf("%+v; want %+v", all[i], want)
		}
	}
	if !strings.HasPrefix(state, "broken: ") {
		t.Errorf("state %q", state)
	}
	out, _, err = d.run("check")
	if err == nil || !strings.Contains(out, "error: "+d.conf+":1:1: table mail: dkim: d.example, selector s2: broken: ") || !strings.Contains(out, "gone.key: no such file") || strings.Count(out, "\n") != 1 {
		t.Errorf("check: %v\n%s", err, out)
	}
	d.must("dkim", "rm", "d.example", "s2")
	if _, _, err := d.run("dkim", "rm", "d.example", "s2"); err == nil || !strings.Contains(err.Error(), "no such row") {
		t.Errorf("rm twice: %v", err)
	}
	if out := d.must("check"); out != "configuration OK\n" {
		t.Error(out)
	}
}
