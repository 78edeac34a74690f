package privsep

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tabard/internal/logging/logtest"
	"tabard/internal/rpc"
)

// running is a supervisor under test.
type running struct {
	*Supervisor
	log  *logtest.Buffer
	stop context.CancelFunc
	done chan error // what Run returned
}

// run starts a supervisor and waits until it is ready.
func run(t *testing.T, specs []Spec, edges []Edge, opts Options) *running {
	t.Helper()
	r := launch(t, specs, edges, opts)
	select {
	case err := <-r.done:
		t.Fatalf("Run: %v\n%s", err, r.log)
	case <-r.isReady:
	}
	return r.running
}

type launched struct {
	*running
	isReady chan struct{}
}

func launch(t *testing.T, specs []Spec, edges []Edge, opts Options) *launched {
	t.Helper()
	log := &logtest.Buffer{}
	ready := make(chan struct{})
	opts.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	opts.Ready = func() { close(ready) }
	if opts.Backoff == (Backoff{}) {
		opts.Backoff = Backoff{First: time.Millisecond, Max: 10 * time.Millisecond}
	}
	s, err := New(specs, edges, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Supervisor: s, log: log, stop: cancel, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		s.Kill()
		<-ended
		if t.Failed() {
			t.Log(log)
		}
	})
	return &launched{r, ready}
}

// eventually waits until ok, and fails the test if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

var pairOfTwo = []Edge{{Name: "ask", From: "front", To: "back"}}

func TestEdgesWorkAndHeal(t *testing.T) {
	s := run(t, []Spec{{Name: "front", Init: config{}}, {Name: "back", Init: config{}}}, pairOfTwo, Options{})
	back := pid(s.Supervisor, "back")
	if got := ask[rpc.None, int](t, s.Supervisor, "front", "PeerPID", rpc.None{}); got != back || back == 0 {
		t.Fatalf("front reaches %d, back is %d", got, back)
	}
	for _, victim := range []string{"back", "front", "back"} {
		before := pid(s.Supervisor, victim)
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, victim+" is running again", func() bool {
			p := process1(s.Supervisor, victim)
			return p.State == StateRunning && p.PID != before
		})
		if got := ask[rpc.None, int](t, s.Supervisor, "front", "PeerPID", rpc.None{}); got != pid(s.Supervisor, "back") {
			t.Errorf("after the death of %s front reaches %d", victim, got)
		}
	}
	p := process1(s.Supervisor, "back")
	if p.Restarts != 2 || p.LastExit != "signal: killed" {
		t.Errorf("status: %+v", p)
	}
	if !strings.Contains(s.log.String(), "signal: killed") {
		t.Errorf("log: %s", s.log)
	}
}

// A configuration may be far larger than a message between processes.
func TestLargeConfiguration(t *testing.T) {
	entries := make([]string, 100_000)
	for i := range entries {
		entries[i] = "user" + strings.Repeat("x", i%50)
	}
	s := run(t, []Spec{{Name: "lookup", Init: config{Table: entries}}}, nil, Options{})
	if st := ask[rpc.None, state](t, s.Supervisor, "lookup", "State", rpc.None{}); st.Entries != len(entries) {
		t.Errorf("%d entries arrived", st.Entries)
	}
	r := launch(t, []Spec{{Name: "lookup", Init: config{Secret: strings.Repeat("x", 9<<20)}}}, nil, Options{})
	if err := <-r.done; err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a configuration beyond the limit: %v", err)
	}
}

func TestListenersSurviveARestart(t *testing.T) {
	l, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fl, err := net.FileListener(l)
	if err != nil {
		t.Fatal(err)
	}
	addr := fl.Addr().String()
	fl.Close()
	s := run(t, []Spec{{Name: "front", Init: config{}, Listeners: []Listener{{"smtp", l}}}}, nil, Options{})
	for range 2 {
		asking := make(chan error, 1)
		go func() {
			_, err := question[string, rpc.None](t, s.Supervisor, "front", "Greet", "smtp")
			asking <- err
		}()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		conn.Close()
		if string(got) != "front" || err != nil {
			t.Errorf("greeting %q, %v", got, err)
		}
		if err := <-asking; err != nil {
			t.Error(err)
		}
		if _, err := question[string, rpc.None](t, s.Supervisor, "front", "Greet", "smtp"); err == nil {
			t.Error("a listener can be taken twice")
		}
		before := pid(s.Supervisor, "front")
		syscall.Kill(before, syscall.SIGKILL)
		eventually(t, "front is running again", func() bool {
			p := process1(s.Supervisor, "front")
			return p.State == StateRunning && p.PID != before
		})
	}
	s.stop()
	<-s.done
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("the address still listens after the stop")
	}
}

func TestInitialFailureIsReported(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  config
		want string
	}{
		{"with last words", config{Fail: "cannot open /nowhere/mail.db\nreally"}, "lookup: cannot open /nowhere/mail.db really (exit status 1)"},
		{"silently", config{Exit: true}, "lookup: exit status 7"},
		{"too slow", config{Never: true}, "lookup: not ready after 50ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := Options{}
			if tt.cfg.Never {
				opts.StartTimeout = 50 * time.Millisecond
			}
			journal := filepath.Join(t.TempDir(), "journal")
			r := launch(t, []Spec{{Name: "smtpd", Init: config{Journal: journal}}, {Name: "lookup", Init: tt.cfg}}, nil, opts)
			if err := <-r.done; err == nil || err.Error() != tt.want {
				t.Errorf("Run: %v, want %s", err, tt.want)
			}
			if _, err := os.Stat(journal); err == nil {
				t.Error("smtpd was started before lookup was ready")
			}
		})
	}
}

func TestCrashLoopLeavesOthersAlone(t *testing.T) {
	s := run(t, []Spec{{Name: "sick", Init: config{}}, {Name: "well", Init: config{}}}, nil, Options{})
	well := pid(s.Supervisor, "well")
	for restarts := range 6 {
		eventually(t, "sick runs", func() bool {
			return process1(s.Supervisor, "sick").Restarts == restarts && pid(s.Supervisor, "sick") != 0
		})
		if err := syscall.Kill(pid(s.Supervisor, "sick"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the sixth restart", func() bool { return process1(s.Supervisor, "sick").Restarts == 6 })
	for _, delay := range []string{"delay=0s", "delay=1ms", "delay=2ms", "delay=4ms", "delay=8ms", "delay=10ms"} {
		if !strings.Contains(s.log.String(), delay) {
			t.Errorf("the log does not show %s", delay)
		}
	}
	if p := process1(s.Supervisor, "well"); p.PID != well || p.Restarts != 0 || p.State != StateRunning {
		t.Errorf("well: %+v", p)
	}
}

func TestBackoff(t *testing.T) {
	var b Backoff
	b.defaults()
	for n, want := range []time.Duration{0, 0, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
		if got := b.delay(n); got != want {
			t.Errorf("failure %d: %v, want %v", n, got, want)
		}
	}
	if got := b.delay(1 << 30); got != 10*time.Second {
		t.Errorf("many failures: %v", got)
	}
}

func TestHealthResetsTheBackoff(t *testing.T) {
	s := &Supervisor{opts: Options{Log: slog.New(slog.DiscardHandler)}}
	s.opts.defaults()
	p := newProcess(Spec{Name: "x"}, false)
	close(p.ready)
	for i, ran := range []time.Duration{0, 0, 0, 31 * time.Second, 0} {
		p.since = time.Now().Add(-ran)
		delay, again := s.ended(p, errors.New("x"))
		want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 0, 100 * time.Millisecond}[i]
		if !again || delay != want {
			t.Errorf("end %d: %v, %v, want %v", i, delay, again, want)
		}
	}
}

func TestStopOrder(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	cfg := config{Journal: journal}
	s := run(t, []Spec{{Name: "smtpd", Init: cfg}, {Name: "mta", Init: cfg}, {Name: "queue", Init: cfg}, {Name: "lookup", Init: cfg}}, nil, Options{})
	if err := s.Spawn(Spec{Name: "deliver", Init: cfg}, Edge{"work", "deliver", "queue"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "deliver runs", func() bool { return process1(s.Supervisor, "deliver").State == StateRunning })
	s.stop()
	if err := <-s.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	got, err := os.ReadFile(journal)
	if want := []string{"smtpd", "mta", "deliver", "queue", "lookup"}; err != nil || !slices.Equal(lines(string(got)), want) {
		t.Errorf("stopped in the order %q, %v", got, err)
	}
	for _, p := range s.Status().Processes {
		if p.PID != 0 || p.State != StateStopped {
			t.Errorf("afterwards: %+v", p)
		}
	}
	if err := s.Spawn(Spec{Name: "late"}); !errors.Is(err, ErrStopping) {
		t.Errorf("Spawn: %v", err)
	}
}

func TestADeafProcessIsKilled(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	s := run(t, []Spec{{Name: "deaf", Init: config{Deaf: true}}, {Name: "good", Init: config{Journal: journal}}}, nil, Options{StopTimeout: 2 * time.Second})
	s.stop()
	if err := <-s.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if !strings.Contains(s.log.String(), "killing it") {
		t.Errorf("log: %s", s.log)
	}
	if got, err := os.ReadFile(journal); string(got) != "good\n" {
		t.Errorf("the other process had no time to stop: %q, %v", got, err)
	}
}

func TestKillStopsAtOnce(t *testing.T) {
	s := run(t, []Spec{{Name: "deaf", Init: config{Deaf: true}}}, nil, Options{StopTimeout: time.Hour})
	s.stop()
	eventually(t, "it is stopping", func() bool { return process1(s.Supervisor, "deaf").State == StateStopping })
	s.Kill()
	if err := <-s.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	log := &logtest.Buffer{}
	ready := make(chan struct{})
	s, err := New([]Spec{{Name: "deaf", Init: config{Deaf: true}}}, nil, Options{
		Log: slog.New(slog.NewTextHandler(log, nil)), StopTimeout: time.Hour, Ready: func() { close(ready) },
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.RunUntilSignal(t.Context(), syscall.SIGUSR1) }()
	<-ready
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	eventually(t, "it is stopping", func() bool { return process1(s, "deaf").State == StateStopping })
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	if err := <-done; err != nil {
		t.Errorf("Run: %v\n%s", err, log)
	}
}

func TestSignalsToChildrenAreTheSupervisorsBusiness(t *testing.T) {
	s := run(t, []Spec{{Name: "front", Init: config{}}}, nil, Options{})
	before := pid(s.Supervisor, "front")
	ask[rpc.None, rpc.None](t, s.Supervisor, "front", "Terminate", rpc.None{})
	if after := ask[rpc.None, int](t, s.Supervisor, "front", "PID", rpc.None{}); after != before {
		t.Errorf("pid %d became %d", before, after)
	}
}

func TestSpawnOnRequest(t *testing.T) {
	var s *running
	specs := []Spec{
		{Name: "front", Init: config{}},
		{Name: "queue", Init: config{}, OnRequest: func(_ context.Context, r Request) (any, error) {
			var user string
			if err := r.Decode(&user); err != nil {
				return nil, err
			}
			if r.Kind != "deliver" || r.From != "queue" {
				return nil, errors.New("unknown request " + r.Kind)
			}
			name := "deliver " + user
			return name, s.Spawn(Spec{Name: name, Init: config{}}, Edge{"body", "queue", name})
		}},
	}
	s = run(t, specs, nil, Options{})
	if got := ask[asked, string](t, s.Supervisor, "queue", "Ask", asked{"deliver", "1000"}); got != "deliver 1000" {
		t.Errorf("answer %q", got)
	}
	deliver := pid(s.Supervisor, "deliver 1000")
	eventually(t, "deliver runs", func() bool { deliver = pid(s.Supervisor, "deliver 1000"); return deliver != 0 })
	if got := ask[rpc.None, int](t, s.Supervisor, "queue", "PeerPID", rpc.None{}); got != deliver {
		t.Errorf("queue reaches %d, deliver is %d", got, deliver)
	}
	if _, err := question[asked, string](t, s.Supervisor, "queue", "Ask", asked{"deliver", "1000"}); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("a second one: %v", err)
	}
	if _, err := question[asked, string](t, s.Supervisor, "queue", "Ask", asked{"reboot", "now"}); err == nil || !strings.Contains(err.Error(), "unknown request") {
		t.Errorf("another request: %v", err)
	}
	if _, err := question[asked, string](t, s.Supervisor, "front", "Ask", asked{"deliver", "0"}); err == nil || !strings.Contains(err.Error(), "may not ask") {
		t.Errorf("a process without the right: %v", err)
	}
	// It may be gone before its answer is.
	_, _ = question[rpc.None, rpc.None](t, s.Supervisor, "deliver 1000", "Quit", rpc.None{})
	eventually(t, "deliver is forgotten", func() bool { return process1(s.Supervisor, "deliver 1000").Name == "" })
	// The same user again.
	ask[asked, string](t, s.Supervisor, "queue", "Ask", asked{"deliver", "1000"})
}

func TestSpawnErrors(t *testing.T) {
	s := run(t, []Spec{{Name: "queue", Init: config{}}}, nil, Options{})
	if err := s.Spawn(Spec{Name: "queue"}); !errors.Is(err, ErrRunning) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := s.Spawn(Spec{Name: "x"}, Edge{"e", "x", "nobody"}); !errors.Is(err, ErrNoSuch) {
		t.Errorf("an edge to nobody: %v", err)
	}
	if n := len(s.Status().Processes); n != 1 {
		t.Errorf("%d processes are left", n)
	}
	if _, err := s.Connect("nobody", "control"); !errors.Is(err, ErrNoSuch) {
		t.Errorf("Connect: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, try := range map[string]struct {
		specs []Spec
		edges []Edge
	}{
		"a name twice":      {[]Spec{{Name: "a"}, {Name: "a"}}, nil},
		"an edge to no-one": {[]Spec{{Name: "a"}}, []Edge{{"e", "a", "b"}}},
		"an edge to itself": {[]Spec{{Name: "a"}}, []Edge{{"e", "a", "a"}}},
	} {
		if _, err := New(try.specs, try.edges, Options{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAChildThatBreaksTheProtocolIsKilled(t *testing.T) {
	s := launch(t, []Spec{{Name: "hostile", Init: config{Garbage: true}}}, nil, Options{})
	if err := <-s.done; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Run: %v", err)
	}
	if !strings.Contains(s.log.String(), "broke the control protocol") {
		t.Errorf("log: %s", s.log)
	}
}
