package mta

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"tabard/lookup"
	"tabard/queue"
)

// dkimStore is memLookup's part for signatures of mail.
type dkimStore struct {
	keys    map[string][]lookup.DKIMKey // by author's domain
	err     error
	signers map[string]crypto.Signer // by handle
	records map[string]string        // TXT records
	signs   int
}

func (l *memLookup) DKIM(_ context.Context, r lookup.DKIMRequest) ([]lookup.DKIMKey, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Action != "out" {
		return nil, fmt.Errorf("asked for %+v", r)
	}
	return l.dkim.keys[r.Domain], l.dkim.err
}

// add stores a key for an author's domain.
func (s *dkimStore) add(t *testing.T, domain, selector string, key crypto.Signer) {
	t.Helper()
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if s.keys == nil {
		*s = dkimStore{keys: make(map[string][]lookup.DKIMKey), signers: make(map[string]crypto.Signer), records: make(map[string]string)}
	}
	k := lookup.DKIMKey{Domain: domain, Selector: selector, Handle: "d." + selector, Public: public}
	s.keys[domain] = append(s.keys[domain], k)
	s.signers[k.Handle] = key
	kind, record := "rsa", public
	if ed, ok := key.Public().(ed25519.PublicKey); ok {
		kind, record = "ed25519", ed
	}
	s.records[selector+"._domainkey."+domain] = "v=DKIM1; k=" + kind + "; p=" + base64.StdEncoding.EncodeToString(record)
}

// verify returns the domain of every good signature, and "bad" for the others.
func (s *dkimStore) verify(t *testing.T, text []byte) string {
	t.Helper()
	found, err := dkim.VerifyWithOptions(bytes.NewReader(text), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if r, ok := s.records[name]; ok {
			return []string{r}, nil
		}
		return nil, errors.New("no record of " + name)
	}})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range found {
		if v.Err != nil {
			t.Log(v.Err)
			out = append(out, "bad")
		} else {
			out = append(out, v.Domain)
		}
	}
	return strings.Join(out, " ")
}

const letter = "Received: by here\r\nFrom: \"A, B\" <a@example.org>\r\nTo: x@example.net\r\nSubject:  two\r\n  lines \r\nDate: today\r\n\r\n"

func dkimWorld(t *testing.T) (*world, *sink, *dkimStore) {
	t.Helper()
	s, addr := startSink(t, true)
	w := newWorld(t)
	w.lookup.set(lookup.Route{Hosts: []lookup.RelayURL{plainRelay}, DKIM: true})
	w.at("192.0.2.3:25", addr).start()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	w.lookup.dkim.add(t, "example.org", "rsa", rsaKey)
	w.lookup.dkim.add(t, "example.org", "ed", ed)
	return w, s, &w.lookup.dkim
}

// sendText delivers a message to one recipient, from the job or streamed.
func sendText(w *world, text string, streamed bool) queue.Result {
	j := job(w.queue.nextID(), "x@example.net")
	j.Body, j.Message.Size = []byte(text), int64(len(text))
	if streamed {
		w.stream(&j, 777)
	}
	return w.deliver(j)[0]
}

// Every key signs; what arrives verifies, and is the message behind the signatures.
func TestSigned(t *testing.T) {
	w, s, store := dkimWorld(t)
	for i, body := range []string{"hello\r\n", "", ".\r\n..\r\n", strings.Repeat("0123456789 \t x\r\n", 9000), "no end", "\r\n\r\n\r\n"} {
		for _, streamed := range []bool{false, true} {
			wantResult(t, sendText(w, letter+body, streamed), queue.Delivered, 250)
			got := <-s.mails
			if v := store.verify(t, got); v != "example.org example.org" {
				t.Errorf("body %d, streamed %t: %s", i, streamed, v)
			}
			// The end of a line is made whole on the way, whoever signs.
			if !bytes.HasSuffix(bytes.TrimSuffix(got, []byte("\r\n")), []byte(strings.TrimSuffix(letter+body, "\r\n"))) {
				t.Errorf("body %d, streamed %t: not the message behind the signatures", i, streamed)
			}
		}
	}
	wantResult(t, sendText(w, letter+"hello\r\n", false), queue.Delivered, 250)
	got := <-s.mails
	for _, added := range []string{"Subject: another\r\n", "From: b@example.org\r\n", "To: c@example.org\r\n"} {
		if v := store.verify(t, append([]byte(added), got...)); v != "bad bad" {
			t.Errorf("with another %q: %s", added, v)
		}
	}
}

// What signing costs is bounded, whatever the header looks like: a long field is
// signed, and too many fields are not.
func TestSigningIsCheap(t *testing.T) {
	w, s, store := dkimWorld(t)
	many := strings.Repeat("x@example.net,\r\n\t", 3000)
	for name, tt := range map[string]struct {
		header string
		signed string
	}{
		"many recipients": {"From: a@example.org\r\nTo: " + many + "y@example.net\r\n", "example.org example.org"},
		"many lines":      {"From: a@example.org\r\nX: y\r\n" + strings.Repeat(" \r\n", 80_000), "example.org example.org"},
		"many fields":     {"From: a@example.org\r\n" + strings.Repeat("X:\r\n", 60_000), ""},
		"many of a kind":  {"From: a@example.org\r\n" + strings.Repeat("Cc:\r\n", 1000), ""},
	} {
		for _, streamed := range []bool{false, true} {
			began := time.Now()
			wantResult(t, sendText(w, tt.header+"\r\nbody\r\n", streamed), queue.Delivered, 250)
			got := <-s.mails
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s, streamed %t: %s", name, streamed, took)
			}
			if bytes.HasPrefix(got, []byte(tt.header)) != (tt.signed == "") {
				t.Errorf("%s, streamed %t: begins with %.80q", name, streamed, got)
			}
			if tt.signed == "" {
				continue
			}
			// The library that verifies is slow with many lines, too.
			if v := store.verify(t, unfold(got)); v != tt.signed {
				t.Errorf("%s, streamed %t: signed by %q", name, streamed, v)
			}
		}
	}
}

// What has no author with keys goes out as it is.
func TestUnsigned(t *testing.T) {
	w, s, _ := dkimWorld(t)
	for _, text := range []string{
		strings.ReplaceAll(letter, "example.org", "other.example"), "Subject: none\r\n\r\nx\r\n", "From: a@example.org\r\n" + letter,
		"From: nobody\r\n\r\n", "From: a@example.org\r\n", "\r\n", "From a@example.org\r\n\r\n",
	} {
		for _, streamed := range []bool{false, true} {
			wantResult(t, sendText(w, text, streamed), queue.Delivered, 250)
			if got := <-s.mails; string(got) != text {
				t.Errorf("%q arrives as %q", text, got)
			}
		}
	}
}

// An alias does not make a stranger's letter ours, whatever its From says.
func TestStrangersAreNotSigned(t *testing.T) {
	w, s, store := dkimWorld(t)
	for name, tt := range map[string]struct {
		given, user, remote string
		signed              bool
	}{
		"stranger, by an alias":           {"list@example.org", "", "192.0.2.9", false},
		"stranger, by a bare name":        {"postmaster", "", "192.0.2.9", false},
		"trusted host, without an alias":  {"x@Example.NET", "", "192.0.2.9", true},
		"authenticated user, by an alias": {"list@example.org", "a", "192.0.2.9", true},
		"this machine, by an alias":       {"list@example.org", "", "::1", true},
		"local socket, by an alias":       {"list@example.org", "", "local", true},
		"own report, by an alias":         {"list@example.org", "", "", true},
	} {
		j := job(w.queue.nextID(), "x@example.net")
		j.Body, j.Message.Size = []byte(letter), int64(len(letter))
		j.Message.User, j.Message.Remote, j.Envelopes[0].Recipient = tt.user, tt.remote, tt.given
		wantResult(t, w.deliver(j)[0], queue.Delivered, 250)
		want := ""
		if tt.signed {
			want = "example.org example.org"
		}
		if got := store.verify(t, <-s.mails); got != want {
			t.Errorf("%s: signed by %q", name, got)
		}
	}
}

// A message waits when its keys cannot be asked for or do not sign; nothing of it
// goes out before.
func TestNotSigned(t *testing.T) {
	w, s, store := dkimWorld(t)
	w.lookup.mu.Lock()
	store.err = errors.New("table mail: down")
	w.lookup.mu.Unlock()
	wantResult(t, sendText(w, letter, false), queue.Deferred, 0, "4.7.0", "table mail: down")
	w.lookup.mu.Lock()
	store.err = nil
	good := store.signers["d.ed"]
	store.signers["d.ed"] = failing{good}
	w.lookup.mu.Unlock()
	wantResult(t, sendText(w, letter, true), queue.Deferred, 0, "4.7.0", "as ed of example.org: no hand")
	w.lookup.mu.Lock()
	store.signers["d.ed"] = good
	w.lookup.mu.Unlock()
	wantResult(t, sendText(w, letter, false), queue.Delivered, 250)
	if got := <-s.mails; store.verify(t, got) != "example.org example.org" || len(s.mails) != 0 {
		t.Errorf("%d more mails", len(s.mails))
	}
}

type failing struct{ crypto.Signer }

func (failing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no hand")
}

// A message is signed once for all its attempts, and again when its keys change.
func TestSignedOnce(t *testing.T) {
	w, s, store := dkimWorld(t)
	signs := func() int {
		w.lookup.mu.Lock()
		defer w.lookup.mu.Unlock()
		return store.signs
	}
	j := job(7, "x@example.net", "y@example.net")
	j.Body, j.Message.Size = []byte(letter), int64(len(letter))
	for range 3 {
		w.deliver(j)
		if signs() != 2 {
			t.Errorf("signed %d times with 2 keys", signs())
		}
		<-s.mails
	}
	w.lookup.mu.Lock()
	store.keys["example.org"][0].Handle, store.signers["d.new"] = "d.new", store.signers["d.rsa"]
	w.lookup.mu.Unlock()
	w.deliver(j)
	if signs() != 4 || store.verify(t, <-s.mails) != "example.org example.org" {
		t.Errorf("signed %d times after a key changed", signs())
	}
}
