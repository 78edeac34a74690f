package smtpd

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/internal/selfca"
	"tabard/lookup"
	"tabard/queue"
)

// fakeLookup answers from memory, with real keys. The zero value accepts every
// recipient.
type fakeLookup struct {
	mu        sync.Mutex
	certs     map[string]tls.Certificate // by server name; "" for none
	asked     []lookup.CertificateRequest
	sessions  []lookup.Session
	recipient func(lookup.RecipientRequest) (lookup.RecipientReply, error)
	auth      func(lookup.AuthRequest) (lookup.AuthReply, error)
	sender    func(lookup.SenderRequest) (lookup.SenderReply, error)
	connect   func(context.Context, lookup.ConnectRequest) (lookup.ConnectReply, error)
	verdict   lookup.Verdict
	identify  func(lookup.VerifyRequest) (lookup.Identity, error)
	asking    func() // called at each question for a certificate
}

func (f *fakeLookup) Connect(ctx context.Context, r lookup.ConnectRequest) (lookup.ConnectReply, error) {
	if f.connect != nil {
		return f.connect(ctx, r)
	}
	return lookup.ConnectReply{RDNS: "client.example", Hostname: "by-address.example"}, nil
}

func (f *fakeLookup) Certificate(_ context.Context, r lookup.CertificateRequest) (lookup.Certificate, error) {
	if f.asking != nil {
		f.asking()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r)
	cert, ok := f.certs[r.ServerName]
	if !ok {
		return lookup.Certificate{}, fmt.Errorf("certificate: %w", rpc.ErrNotFound)
	}
	fp := sha256.Sum256(bytes.Join(cert.Certificate, nil))
	out := lookup.Certificate{Chain: cert.Certificate, Fingerprint: fp, Handle: r.ServerName}
	if r.Have == fp {
		out.Chain = nil
	}
	return out, nil
}

func (f *fakeLookup) Sign(_ context.Context, r lookup.SignRequest) ([]byte, error) {
	f.mu.Lock()
	key, ok := f.certs[r.Handle].PrivateKey.(crypto.Signer)
	f.mu.Unlock()
	if !ok {
		return nil, errors.New("no such key")
	}
	var opts crypto.SignerOpts = r.Hash
	if r.PSS {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: r.Hash}
	}
	return key.Sign(rand.Reader, r.Digest, opts)
}

func (f *fakeLookup) Identify(_ context.Context, r lookup.VerifyRequest) (lookup.Identity, error) {
	if f.identify != nil {
		return f.identify(r)
	}
	return lookup.Identity{Verdict: f.verdict}, nil
}

func (f *fakeLookup) Authenticate(_ context.Context, r lookup.AuthRequest) (lookup.AuthReply, error) {
	if f.auth != nil {
		return f.auth(r)
	}
	return lookup.AuthReply{OK: r.User == "gilles" && r.Password == "secret", User: r.User}, nil
}

func (f *fakeLookup) Sender(_ context.Context, r lookup.SenderRequest) (lookup.SenderReply, error) {
	if f.sender != nil {
		return f.sender(r)
	}
	return lookup.SenderReply{Allowed: true}, nil
}

func (f *fakeLookup) Recipient(_ context.Context, r lookup.RecipientRequest) (lookup.RecipientReply, error) {
	f.mu.Lock()
	f.sessions = append(f.sessions, r.Session)
	f.mu.Unlock()
	if f.recipient != nil {
		return f.recipient(r)
	}
	return lookup.RecipientReply{Targets: []lookup.Target{{Action: "local", Address: r.Recipient, User: "u"}}}, nil
}

// stored is one message in the fake queue.
type stored struct {
	queue.Submission
	body string
}

// fakeQueue keeps messages in memory. err fails everything, writeErr and
// commitErr parts of streaming.
type fakeQueue struct {
	mu                       sync.Mutex
	messages                 []stored
	err, writeErr, commitErr error
	closed                   error // refuses at MAIL
	open, aborted            int
	hold                     chan struct{} // when not nil, Enqueue waits for it
	entered                  chan struct{} // when not nil, Enqueue says that it waits
}

func (q *fakeQueue) Enqueue(_ context.Context, s queue.Submission, body []byte) error {
	q.mu.Lock()
	hold := q.hold
	q.mu.Unlock()
	if hold != nil {
		close(q.entered)
		<-hold
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	if len(body) > queue.InlineBody {
		return rpc.ErrTooLarge
	}
	q.messages = append(q.messages, stored{s, string(body)})
	return nil
}

func (q *fakeQueue) Create(context.Context) (queue.Writer, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	q.open++
	return &fakeWriter{q: q}, nil
}

func (q *fakeQueue) Accepting() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *fakeQueue) all() []stored {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]stored(nil), q.messages...)
}

type fakeWriter struct {
	q    *fakeQueue
	body strings.Builder
}

func (w *fakeWriter) Write(p []byte) (int, error) {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	if w.q.writeErr != nil {
		return 0, w.q.writeErr
	}
	return w.body.Write(p)
}

func (w *fakeWriter) Commit(_ context.Context, s queue.Submission) error {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	w.q.open--
	if w.q.commitErr != nil {
		return w.q.commitErr
	}
	w.q.messages = append(w.q.messages, stored{s, w.body.String()})
	return nil
}

func (w *fakeWriter) Abort() {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	w.q.open--
	w.q.aborted++
}

// issue makes a certificate with a real key.
func issue(t testing.TB, ca *selfca.Authority, kind selfca.KeyType, name string) tls.Certificate {
	t.Helper()
	now := time.Now()
	chain, key, err := ca.Issue(selfca.Request{Names: []string{name}, Key: kind, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func authority(t testing.TB) *selfca.Authority {
	t.Helper()
	ca, err := selfca.New("test authority", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}
