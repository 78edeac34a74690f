package lookup

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tabard/internal/config"
	"tabard/internal/password"
	"tabard/table"
	"tabard/table/cache"
)

const (
	// memoTTL is how long a password that was right needs no hashing again.
	memoTTL = time.Minute
	// maxMemo bounds how many are remembered.
	maxMemo = 10_000
	// firstDecoy is verified for unknown users until a real hash was seen.
	firstDecoy = "$2b$10$tTT7/qtkVaIrUUyiZduSVuKY5ZDlgnOD08wcPd4enGTaqACEAXJ4O"
)

// authenticator verifies passwords: a bounded number at a time, since one may
// take 100 ms and 64 MiB, and as slowly for users who do not exist as for those
// who do.
type authenticator struct {
	slots   chan struct{}
	waiting atomic.Int64 // for a slot
	secret  [32]byte
	memo    *lru[[32]byte, time.Time]

	mu     sync.Mutex
	decoys map[string]string // by table: the hash seen last
}

// maxWaiting bounds how many log-ins wait for their verification. Who comes after
// them tries again later; the memory of a flood stays bounded.
const maxWaiting = 512

// errFlooded means that too many log-ins wait already.
var errFlooded = errors.New("too many passwords are being verified")

// newAuthenticator leaves a core to others, where there is more than one: the
// process signs handshakes too.
func newAuthenticator() *authenticator {
	a := &authenticator{
		slots:  make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
		memo:   newLRU[[32]byte, time.Time](maxMemo),
		decoys: make(map[string]string),
	}
	_, _ = rand.Read(a.secret[:]) // never fails, see crypto/rand
	return a
}

// Authenticate implements Inbound. A table that judges passwords itself is asked
// to; the credentials of the others are compared. A stored hash of an unknown or
// refused scheme is an error, so that the client tries again while the
// administrator mends the row.
func (s *Service) Authenticate(ctx context.Context, r AuthRequest) (AuthReply, error) {
	l, err := s.listener(r.Listener)
	if err != nil {
		return AuthReply{}, err
	}
	if l.Auth == config.AuthNone {
		return AuthReply{}, fmt.Errorf("%s: authentication is not configured on this listener", l.Pos)
	}
	if l.AuthTable == "" {
		return AuthReply{}, fmt.Errorf("%s: not supported yet: auth by system accounts; give it a table", l.Pos)
	}
	if !sane(r.User, maxName) || !sane(r.Password, password.MaxPassword) {
		return AuthReply{}, nil
	}
	t, err := s.tables.get(l.AuthTable)
	if err != nil {
		return AuthReply{}, err
	}
	return s.authenticate(ctx, t, r.User, r.Password)
}

// authenticate asks a table about a password. A denial that rests on what the
// table said before it went down is none.
func (s *Service) authenticate(ctx context.Context, t *table.Table, user, pass string) (AuthReply, error) {
	itself, err := t.Authenticates(ctx)
	if err != nil {
		return AuthReply{}, err
	}
	if itself {
		ok, err := t.Authenticate(ctx, user, pass)
		if !ok || err != nil {
			return AuthReply{}, err
		}
		return AuthReply{OK: true, User: user}, nil
	}
	ctx = cache.WithOrigin(ctx)
	reply, err := s.auth.authenticate(ctx, t, s.tables.policies[t.Name()], user, pass, s.clock())
	if err != nil || reply.OK {
		return reply, err
	}
	switch origin := cache.OriginOf(ctx); {
	case origin.Stale():
		return AuthReply{}, errUnsure
	case origin.Cached():
		// Where nobody tells of changes, the password may be a new one.
		return s.auth.again(ctx, t, s.tables.policies[t.Name()], user, pass, s.clock())
	}
	return reply, nil
}

// sane reports whether a user name or password may be asked of a table. CR, LF
// and NUL would break the line protocols of table programs.
func sane(text string, max int) bool {
	return text != "" && len(text) <= max && !strings.ContainsAny(text, "\r\n\x00")
}

func (a *authenticator) authenticate(ctx context.Context, t *table.Table, p password.Policy, user, pass string, now time.Time) (AuthReply, error) {
	login, err := t.Credentials(ctx, user)
	known := err == nil && !password.Locked(login.Password)
	switch {
	case errors.Is(err, table.ErrNotFound):
	case err != nil:
		return AuthReply{}, err
	case known:
		ok, err := a.verify(ctx, p, login, pass, now)
		if err != nil {
			return AuthReply{}, fmt.Errorf("table %s: credentials of %.100q: %w", t.Name(), user, err)
		}
		a.setDecoy(t.Name(), login.Password)
		if ok {
			return AuthReply{OK: true, User: login.User}, nil
		}
		return AuthReply{}, nil
	}
	// What this says is of no interest, only that it takes its time.
	_, err = a.hash(ctx, p, a.decoy(t.Name()), pass)
	return AuthReply{}, err
}

// again judges by the row as it is now, if it is another than the one known.
func (a *authenticator) again(ctx context.Context, t *table.Table, p password.Policy, user, pass string, now time.Time) (AuthReply, error) {
	old, _ := t.Credentials(ctx, user)
	login, err := t.Credentials(cache.Fresh(ctx), user)
	if errors.Is(err, table.ErrNotFound) || err == nil && login == old {
		return AuthReply{}, nil
	}
	if err != nil {
		return AuthReply{}, err
	}
	return a.authenticate(ctx, t, p, user, pass, now)
}

// verify judges a password, by the memo if it was right a moment ago. The
// stored hash is part of the memo's key: a changed password misses it.
func (a *authenticator) verify(ctx context.Context, p password.Policy, login table.Login, pass string, now time.Time) (bool, error) {
	key := a.memoKey(login, pass)
	if until, ok := a.memo.get(key); ok && now.Before(until) {
		return true, nil
	}
	ok, err := a.hash(ctx, p, login.Password, pass)
	if ok && err == nil {
		a.memo.put(key, now.Add(memoTTL))
	}
	return ok, err
}

func (a *authenticator) memoKey(login table.Login, pass string) (key [32]byte) {
	mac := hmac.New(sha256.New, a.secret[:])
	for _, part := range []string{login.Password, login.User, pass} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		mac.Write(n[:])
		mac.Write([]byte(part))
	}
	mac.Sum(key[:0])
	return key
}

// hash verifies when there is a slot free.
func (a *authenticator) hash(ctx context.Context, p password.Policy, stored, pass string) (bool, error) {
	defer a.waiting.Add(-1)
	if a.waiting.Add(1) > maxWaiting {
		return false, errFlooded
	}
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-a.slots }()
	return p.Verify(stored, pass)
}

func (a *authenticator) decoy(table string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d, ok := a.decoys[table]; ok {
		return d
	}
	return firstDecoy
}

func (a *authenticator) setDecoy(table, stored string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.decoys[table] = stored
}

// Sender implements Inbound. A user may send as the addresses that the
// listener's senders table lists, by the rules of service mailaddr; the null
// reverse-path needs the entry "@".
func (s *Service) Sender(ctx context.Context, r SenderRequest) (SenderReply, error) {
	l, err := s.listener(r.Listener)
	if err != nil {
		return SenderReply{}, err
	}
	if l.Senders == "" {
		return SenderReply{Allowed: true}, nil
	}
	if r.User == "" || len(r.User) > maxName || len(r.Sender) > maxAddress {
		return SenderReply{}, nil
	}
	t, err := s.tables.get(l.Senders)
	if err != nil {
		return SenderReply{}, err
	}
	return sure(ctx, func(r SenderReply) bool { return !r.Allowed }, func(ctx context.Context) (SenderReply, error) {
		return s.maySend(ctx, t, r)
	})
}

func (s *Service) maySend(ctx context.Context, t *table.Table, r SenderRequest) (SenderReply, error) {
	patterns, err := t.MailAddrMap(ctx, r.User)
	if errors.Is(err, table.ErrNotFound) {
		return SenderReply{}, nil
	}
	if err != nil {
		return SenderReply{}, err
	}
	return SenderReply{Allowed: table.MatchAnyMail(patterns, r.Sender, s.delim)}, nil
}
