package mta

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tabard/queue"
)

func TestPenalties(t *testing.T) {
	now := time.Unix(1000000, 0)
	p := newPenalties(func() time.Time { return now })
	wants := []time.Duration{15 * time.Second, time.Minute, 135 * time.Second, 240 * time.Second}
	for i, want := range wants {
		if _, _, ok := p.enter("a", false); !ok {
			t.Fatalf("fault %d: not let in", i)
		}
		if _, _, ok := p.enter("a", false); ok && i > 0 {
			t.Errorf("fault %d: two probes at once", i)
		}
		if got := p.bad("a", "why").Sub(now); got != want {
			t.Errorf("penalty %d is %s, want %s", i, got, want)
		}
		if got := p.bad("a", "why").Sub(now); got != want {
			t.Errorf("the same fault counted twice: %s", got)
		}
		if until, why, ok := p.enter("a", false); ok || why != "why" || until.Sub(now) != want {
			t.Errorf("let in during the penalty: %v %q", until, why)
		}
		now = now.Add(want)
	}
	for range 30 {
		now = p.bad("a", "")
	}
	if last := p.bad("a", "").Sub(now); last != time.Hour {
		t.Errorf("the longest penalty is %s", last)
	}
	now = now.Add(time.Hour)
	if _, _, ok := p.enter("a", false); !ok {
		t.Fatal("not let in")
	}
	p.leave("a")
	if _, _, ok := p.enter("a", false); !ok {
		t.Error("not let in after a probe that found nothing out")
	}
	p.good("a")
	if got := p.bad("a", "").Sub(now); got != 15*time.Second {
		t.Errorf("not forgiven: %s", got)
	}
}

func TestPenaltiesBounded(t *testing.T) {
	now := time.Unix(1000000, 0)
	p := newPenalties(func() time.Time { return now })
	for i := range penaltyEntries + 100 {
		p.bad(fmt.Sprint(i), "")
	}
	if n := len(p.at); n > penaltyEntries {
		t.Errorf("%d places remembered", n)
	}
	now = now.Add(5 * time.Hour)
	p.bad("new", "")
	if n := len(p.at); n != 1 {
		t.Errorf("%d places remembered after all were forgotten", n)
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(2)
	a, b := bound{key: "a", places: 1}, bound{key: "b", places: 1}
	ctx, cancel := context.WithCancel(t.Context())
	unasked := func() { t.Error("told to wait") }
	for _, free := range []bound{a, b} {
		if err := l.acquire(ctx, free, unasked); err != nil || l.wanted([]string{"b", "a"}) {
			t.Fatalf("acquire: %v", err)
		}
	}
	l.release("b", 0)
	got, told := make(chan error, 2), make(chan struct{}, 2)
	wait := func(ctx context.Context) { got <- l.acquire(ctx, a, func() { told <- struct{}{} }) }
	go wait(ctx)
	waitLine(l, "a", 1)
	go wait(t.Context())
	waitLine(l, "a", 2)
	for range 2 {
		<-told
	}
	if err := l.acquire(ctx, a, unasked); !errors.Is(err, errBusy) || !l.wanted([]string{"b", "a"}) {
		t.Errorf("third in line: %v", err)
	}
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	l.release("a", 0)
	if err := <-got; err != nil {
		t.Errorf("next in line: %v", err)
	}
	l.release("a", 0)
	if len(l.at) != 0 {
		t.Error("an empty room is kept")
	}
}

// Under a delay one begins after the other, as far as its context lets it wait.
func TestLimiterDelay(t *testing.T) {
	now := time.Now()
	l := newLimiter(2)
	l.now = func() time.Time { return now }
	enter := func(b bound) error {
		ctx, cancel := context.WithDeadline(t.Context(), now.Add(time.Second)) // the limiter's clock runs ahead of it
		defer cancel()
		return l.acquire(ctx, b, func() {})
	}
	slow := bound{key: "a", delay: 10 * time.Second}
	if err := enter(slow); err != nil {
		t.Fatal(err)
	}
	if err := enter(slow); !errors.Is(err, errBusy) {
		t.Errorf("at once: %v", err)
	}
	now = now.Add(10 * time.Second)
	if err := l.acquire(t.Context(), slow, func() {}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	l.release("a", 0)
	l.release("a", time.Hour)
	if err := enter(bound{key: "a", delay: 1}); !errors.Is(err, errBusy) {
		t.Errorf("while it rests: %v", err)
	}
	now = now.Add(time.Hour)
	if l.clear(); len(l.at) != 0 {
		t.Error("a room is kept that nobody waits for")
	}
}

func waitLine(l *limiter, key string, n int) {
	for {
		l.mu.Lock()
		have := len(l.at[key].line)
		l.mu.Unlock()
		if have == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestReadReply(t *testing.T) {
	tests := []struct {
		in, want string
		enhanced string
	}{
		{"250 ok\r\n", "250 ok", ""}, {"250\r\n", "250", ""}, {"250-a\r\n250 b\r\n", "250 a b", ""},
		{"250 ok\n", "250 ok", ""}, {"553-\r\n553\r\n", "553", ""}, {"553-x\n553 y\n", "553 x y", ""},
		{"550 5.1.1 no\x00\x1b\r\n", "550 5.1.1 no??", "5.1.1"}, {"250 2.0.0\r\n", "250 2.0.0", "2.0.0"},
		{"550 5.1.1234 x\r\n", "550 5.1.1234 x", ""}, {"550 5.1 x\r\n", "550 5.1 x", ""},
		{"550 5..1.1 x\r\n", "550 5..1.1 x", ""}, {"250 a\rb\r\n", "250 a b", ""},
		{"250-a\r\n550 b\r\n", "", ""}, {"25\r\n", "", ""}, {"abc def\r\n", "", ""}, {"650 x\r\n", "", ""},
		{"150 x\r\n", "", ""}, {"250_x\r\n", "", ""}, {"2505 x\r\n", "", ""}, {"250 cut", "", ""}, {"", "", ""},
		{"250 " + strings.Repeat("x", 3000) + "\r\n", "", ""},
		{strings.Repeat("250-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 3000), "", ""},
	}
	for _, tt := range tests {
		r, err := readReply(bufio.NewReaderSize(strings.NewReader(tt.in), maxReplyLine))
		if (err == nil) != (tt.want != "") || err == nil && (r.String() != tt.want || r.enhanced() != tt.enhanced) {
			t.Errorf("%.40q gives %q (%s), %v", tt.in, r, r.enhanced(), err)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"250-a\r\n250 b\r\n", "550 5.1.1 no\r\n", "553-\r\n553", "220 \x00\xff\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := readReply(bufio.NewReaderSize(strings.NewReader(s), maxReplyLine))
		if err != nil {
			return
		}
		if r.code < 200 || r.code > 599 || len(r.lines) == 0 {
			t.Errorf("reply %+v", r)
		}
		if strings.ContainsAny(r.String(), "\r\n\x00") || strings.Contains(r.text(), "\r") {
			t.Errorf("text %q", r.text())
		}
		if e := r.enhanced(); e != "" && int(e[0]-'0') != r.code/100 {
			t.Errorf("%d with %s", r.code, e)
		}
		parseOffers(r.lines)
	})
}

// The same result whatever the borders of the chunks.
func FuzzLineEnds(f *testing.F) {
	f.Add("a\r\nb", 2)
	f.Add("\r\n", 1)
	f.Add("a\r\r\n", 2)
	f.Fuzz(func(t *testing.T, s string, cut int) {
		if cut < 0 || cut > len(s) {
			return
		}
		want := strings.ReplaceAll(s, "\r\n", "")
		var e lineEnds
		err := errors.Join(e.check([]byte(s[:cut])), e.check([]byte(s[cut:])), e.end())
		if (err == nil) != !strings.ContainsAny(want, "\r\n") {
			t.Errorf("%q cut at %d: %v", s, cut, err)
		}
	})
}

// Of what two servers mean for mail, the order in which they were tried does not
// matter, and nothing fails for good as long as one of them may do.
func TestFailureOr(t *testing.T) {
	paused, crowded := &failure{outcome: queue.Paused}, &failure{outcome: queue.Returned}
	dead, final := deferred("4.4.1", "dead"), failed("5.7.30", "never")
	for _, tt := range []struct {
		a, b *failure
		want queue.Outcome
	}{
		{paused, final, queue.Paused}, {crowded, final, queue.Returned}, {dead, final, queue.Deferred}, {final, final, queue.Failed},
		{paused, dead, queue.Deferred}, {crowded, dead, queue.Deferred}, {crowded, paused, queue.Returned}, {paused, paused, queue.Paused},
	} {
		if got := tt.a.or(tt.b).outcome; got != tt.want {
			t.Errorf("%d or %d is %d", tt.a.outcome, tt.b.outcome, got)
		}
		if got := tt.b.or(tt.a).outcome; got != tt.want {
			t.Errorf("%d or %d is %d", tt.b.outcome, tt.a.outcome, got)
		}
	}
}
