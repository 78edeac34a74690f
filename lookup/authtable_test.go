package lookup

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"tabard/internal/config"
	"tabard/internal/password"
	"tabard/table"
)

// bindTable is a table that judges passwords itself, as a directory does.
type bindTable struct {
	*memory
	asked func(user, password string) (bool, error)
	ready error
}

func (j *bindTable) Authenticates(context.Context) (bool, error) { return j.ready == nil, j.ready }

func (j *bindTable) Authenticate(_ context.Context, user, password string) (bool, error) {
	return j.asked(user, password)
}

// serviceWith makes a service whose table of a name is b.
func (f *fixture) serviceWith(text, name string, b table.Backend) *Service {
	f.t.Helper()
	cfg, err := config.Parse("test.conf", []byte(text), config.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	s, err := New(f.t.Context(), Options{Config: cfg, Hostname: "mx.example.org", Open: func(ctx context.Context, c config.Table) (table.Backend, error) {
		if c.Name == name {
			return b, nil
		}
		return f.open(ctx, c)
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { s.Close() })
	return s
}

func TestAuthenticateByTable(t *testing.T) {
	f := newFixture(t)
	j := &bindTable{memory: newMemory(), asked: func(user, pass string) (bool, error) {
		if user == "down" {
			return false, errDown
		}
		return user == "Alice" && pass == "S3cret:x", nil
	}}
	// Credentials of such a table are not looked at.
	j.set(table.Credentials, "bob", "bob", horseHash)
	s := f.serviceWith(strings.ReplaceAll(authConf, " cache off", ""), "users", j)
	for _, tt := range []struct {
		user, pass string
		want       AuthReply
		err        error
	}{
		{"Alice", "S3cret:x", AuthReply{true, "Alice"}, nil},
		{"Alice", "s3cret:x", AuthReply{}, nil},
		{"alice", "S3cret:x", AuthReply{}, nil},
		{"Alice", "", AuthReply{}, nil},
		{"bob", "correct horse", AuthReply{}, nil},
		{"down", "x", AuthReply{}, errDown},
	} {
		got, err := s.Authenticate(t.Context(), AuthRequest{User: tt.user, Password: tt.pass})
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s %s: %+v, %v", tt.user, tt.pass, got, err)
		}
		if err != nil && strings.Contains(err.Error(), tt.pass+"\"") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	j.ready = errDown
	if got, err := s.Authenticate(t.Context(), AuthRequest{User: "Alice", Password: "S3cret:x"}); !errors.Is(err, errDown) {
		t.Errorf("a table that cannot say what it does: %+v, %v", got, err)
	}
}

func TestPasswordPolicy(t *testing.T) {
	f := newFixture(t)
	conf := strings.Replace(authConf, "/mem/users cache off", "/mem/users cache off default-scheme PLAIN allow-plain", 1)
	s := f.service(conf)
	f.table("users").set(table.Credentials, "clear", "clear", "open sesame")
	if r, err := s.Authenticate(t.Context(), AuthRequest{User: "clear", Password: "open sesame"}); !r.OK || err != nil {
		t.Errorf("allowed: %+v, %v", r, err)
	}
	strict := newFixture(t)
	s = strict.service(strings.Replace(authConf, "/mem/users cache off", "/mem/users cache off refuse-weak", 1))
	strict.table("users").set(table.Credentials, "weak", "weak", "{SHA}CRtQNYhcABcP7J7PJCJJM+PeP8w=")
	r, err := s.Authenticate(t.Context(), AuthRequest{User: "weak", Password: "horse"})
	if r.OK || !errors.Is(err, password.ErrWeak) || !strings.Contains(err.Error(), `"weak"`) || strings.Contains(err.Error(), "CRtQ") {
		t.Errorf("refused: %+v, %v", r, err)
	}
}

// quiet is a table that never tells of changes.
type quiet struct{ *memory }

func (quiet) Watch(context.Context, func(table.Change)) error { return table.ErrUnsupported }

// A wrong password is held against the row as it is now before it is refused, and
// nobody is refused for good by a row that cannot be confirmed.
func TestChangedPasswordOfQuietTable(t *testing.T) {
	f := newFixture(t)
	m := newMemory()
	m.set(table.Credentials, "a", "a", horseHash)
	s := f.serviceWith(strings.ReplaceAll(authConf, " cache off", ""), "users", quiet{m})
	ask := func(pass string) (bool, error) {
		r, err := s.Authenticate(t.Context(), AuthRequest{User: "a", Password: pass})
		return r.OK, err
	}
	if ok, err := ask("correct horse"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	fresh, err := password.Hash("battery staple")
	if err != nil {
		t.Fatal(err)
	}
	m.set(table.Credentials, "a", "a", fresh)
	if ok, err := ask("battery staple"); !ok || err != nil {
		t.Errorf("the new password: %v, %v", ok, err)
	}
	if ok, err := ask("correct horse"); ok || err != nil {
		t.Errorf("the old password: %v, %v", ok, err)
	}
	m.fail(errDown)
	if ok, err := ask("wrong"); ok || !errors.Is(err, errDown) {
		t.Errorf("a wrong password while the table is down: %v, %v", ok, err)
	}
}

// A flood of log-ins verifies no more at a time than there are slots, and the
// rest is told to come again.
func TestLoginFlood(t *testing.T) {
	f := newFixture(t)
	s := f.service(authConf)
	f.table("users").set(table.Credentials, "a", "a", horseHash)
	for range cap(s.auth.slots) {
		s.auth.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range maxWaiting {
		wg.Go(func() { _, _ = s.Authenticate(ctx, AuthRequest{User: "a", Password: "wrong"}) })
	}
	for s.auth.waiting.Load() < maxWaiting {
		if ctx.Err() != nil {
			break
		}
	}
	if _, err := s.Authenticate(ctx, AuthRequest{User: "a", Password: "correct horse"}); !errors.Is(err, errFlooded) {
		t.Errorf("one more: %v", err)
	}
	cancel()
	wg.Wait()
	if n := s.auth.waiting.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
	for range cap(s.auth.slots) {
		<-s.auth.slots
	}
	if r, err := s.Authenticate(t.Context(), AuthRequest{User: "a", Password: "correct horse"}); !r.OK || err != nil {
		t.Errorf("after the flood: %+v, %v", r, err)
	}
}
