package privsep

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tabard/internal/rpc"
)

// generation is a client and a server that are replaced, and asks what stays.
func generation(front, back config) []Spec {
	return []Spec{
		{Name: "front", Init: front, Replaceable: true},
		{Name: "back", Init: back, Replaceable: true},
	}
}

func startGenerations(t *testing.T) *running {
	t.Helper()
	return startAround(t, config{}, generation(config{}, config{}), Options{})
}

// startAround starts a generation and a permanent process.
func startAround(t *testing.T, queue config, specs []Spec, o Options) *running {
	t.Helper()
	specs = []Spec{specs[0], {Name: "queue", Init: queue}, specs[1]}
	return run(t, specs, []Edge{{"in", "front", "back"}, {"local", "queue", "back"}}, o)
}

func stateOf(t *testing.T, s *running, name string) state {
	t.Helper()
	return ask[rpc.None, state](t, s.Supervisor, name, "State", rpc.None{})
}

func peerOf(t *testing.T, s *running, name string) int {
	t.Helper()
	return ask[rpc.None, int](t, s.Supervisor, name, "PeerPID", rpc.None{})
}

func TestReplace(t *testing.T) {
	s := startGenerations(t)
	front, back, queue := pid(s.Supervisor, "front"), pid(s.Supervisor, "back"), pid(s.Supervisor, "queue")
	if err := s.Replace(t.Context(), generation(config{Secret: "2"}, config{})); err != nil {
		t.Fatal(err)
	}
	newBack := pid(s.Supervisor, "back")
	if pid(s.Supervisor, "front") == front || newBack == back || pid(s.Supervisor, "queue") != queue {
		t.Errorf("not replaced: %+v", s.Status().Processes)
	}
	if got := ask[rpc.None, state](t, s.Supervisor, "front", "State", rpc.None{}); got.Secret != "2" {
		t.Errorf("Connect reached %+v", got)
	}
	if got := peerOf(t, s, "front"); got != newBack {
		t.Errorf("the new client asks %d, want %d", got, newBack)
	}
	eventually(t, "the permanent process asks the new one", func() bool { return peerOf(t, s, "queue") == newBack })
	// The probes do not retire by themselves, so the old server still has a client.
	if process1(s.Supervisor, "front (old 1)").PID != front || process1(s.Supervisor, "back (old 1)").PID != back {
		t.Errorf("the old ones: %+v", s.Status().Processes)
	}
	if state := process1(s.Supervisor, "front (old 1)").State; state != StateRetiring {
		t.Errorf("the old client is %s", state)
	}
	if state := process1(s.Supervisor, "back (old 1)").State; state != StateRunning {
		t.Errorf("the old server is %s while its client lives", state)
	}
}

func TestReplaceFails(t *testing.T) {
	s := startGenerations(t)
	before := s.Status().Processes
	for _, specs := range [][]Spec{generation(config{Fail: "no such key"}, config{}), generation(config{}, config{Fail: "no such key"})} {
		if err := s.Replace(t.Context(), specs); err == nil || !strings.Contains(err.Error(), "no such key") {
			t.Errorf("Replace: %v", err)
		}
	}
	eventually(t, "nothing is left of them", func() bool { return len(s.Status().Processes) == len(before) })
	for _, p := range before {
		if pid(s.Supervisor, p.Name) != p.PID {
			t.Errorf("%s has changed", p.Name)
		}
	}
	for _, specs := range [][]Spec{{{Name: "front"}}, {{Name: "front"}, {Name: "queue"}}, {{Name: "front"}, {Name: "nobody"}}} {
		if err := s.Replace(t.Context(), specs); err == nil {
			t.Errorf("%d specs: accepted", len(specs))
		}
	}
}

func TestRetiredAreBoundedAndStop(t *testing.T) {
	s := startGenerations(t)
	for range 6 {
		if err := s.Replace(t.Context(), generation(config{}, config{})); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "four old generations are left", func() bool { return len(s.Status().Processes) == 3+2*4 })
	if process1(s.Supervisor, "front (old 2)").PID != 0 || process1(s.Supervisor, "front (old 3)").PID == 0 {
		t.Errorf("the wrong ones are left: %+v", s.Status().Processes)
	}
	// A retired one that dies stays dead; the one in force comes back.
	dead := pid(s.Supervisor, "front")
	kill(t, process1(s.Supervisor, "front (old 3)").PID)
	kill(t, dead)
	eventually(t, "the one in force is started again", func() bool {
		p := process1(s.Supervisor, "front")
		return p.State == StateRunning && p.PID != dead
	})
	eventually(t, "the retired one is forgotten", func() bool { return process1(s.Supervisor, "front (old 3)").Name == "" })
	if got := peerOf(t, s, "front"); got != pid(s.Supervisor, "back") {
		t.Errorf("it asks %d", got)
	}
}

// TestReplaceInOrder: nobody takes work before the permanent process has
// confirmed what has changed.
func TestReplaceInOrder(t *testing.T) {
	s := startAround(t, config{Mute: true}, generation(config{}, config{}), Options{})
	eventually(t, "the first ones are active", func() bool {
		return stateOf(t, s, "front").Active && stateOf(t, s, "back").Active && stateOf(t, s, "queue").Active
	})
	old := pid(s.Supervisor, "front")
	replaced := make(chan error, 1)
	go func() {
		replaced <- s.Replace(t.Context(), generation(config{}, config{}), Change{"queue", config{}, "new rules"})
	}()
	eventually(t, "the permanent process is told", func() bool { return len(stateOf(t, s, "queue").Updates) == 1 })
	if st := stateOf(t, s, "front"); st.Active || pid(s.Supervisor, "front") == old {
		t.Error("the new client takes work already")
	}
	if got := peerOf(t, s, "queue"); got != pid(s.Supervisor, "back") {
		t.Errorf("the permanent process is told before it asks the new server: it asks %d", got)
	}
	if st := process1(s.Supervisor, "front (old 1)").State; st != StateRunning {
		t.Errorf("the old client is %s already", st)
	}
	ask[rpc.None, rpc.None](t, s.Supervisor, "queue", "Confirm", rpc.None{})
	if err := <-replaced; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new ones are active", func() bool {
		return stateOf(t, s, "front").Active && stateOf(t, s, "back").Active
	})
	if got := stateOf(t, s, "queue").Updates; len(got) != 1 || got[0] != "new rules" {
		t.Errorf("updates %q", got)
	}
	again := pid(s.Supervisor, "front")
	kill(t, again)
	eventually(t, "one that is started again is active", func() bool {
		return process1(s.Supervisor, "front").State == StateRunning && pid(s.Supervisor, "front") != again && stateOf(t, s, "front").Active
	})
}

// TestReplaceWaitsForRest: when it returns, the old ones take nothing more.
func TestReplaceWaitsForRest(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "rest")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s := startAround(t, config{}, generation(config{Rest: fifo}, config{}), Options{})
	replaced := make(chan error, 1)
	go func() { replaced <- s.Replace(t.Context(), generation(config{}, config{})) }()
	eventually(t, "the old one is told", func() bool { return process1(s.Supervisor, "front (old 1)").State == StateRetiring })
	if !stateOf(t, s, "front").Active {
		t.Error("the new one is not active yet: nobody takes work")
	}
	select {
	case err := <-replaced:
		t.Errorf("it returned: %v", err)
		replaced <- err
	default:
	}
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if err := <-replaced; err != nil {
		t.Error(err)
	}
}

// TestReplaceDoesNotHang: processes that confirm nothing delay the others only.
func TestReplaceDoesNotHang(t *testing.T) {
	o := Options{SwitchTimeout: 20 * time.Millisecond}
	s := startAround(t, config{Mute: true}, generation(config{Mute: true}, config{}), o)
	if err := s.Replace(t.Context(), generation(config{}, config{}), Change{"queue", config{}, "rules"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new one is active", func() bool { return stateOf(t, s, "front").Active })
	for _, want := range []string{"does not confirm the new configuration", "does not confirm that it takes no new work"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, s.log)
		}
	}
}

// TestUpdateReachesEveryLife: a process that is being started meanwhile begins
// with the news, or is told.
func TestUpdateReachesEveryLife(t *testing.T) {
	s := startGenerations(t)
	for _, text := range []string{"1", "2", "3"} {
		kill(t, pid(s.Supervisor, "queue"))
		if err := s.Update(t.Context(), "queue", config{Secret: text}, text); err != nil {
			t.Logf("update: %v", err) // it died just then
		}
		eventually(t, "it knows "+text, func() bool {
			st, err := question[rpc.None, state](t, s.Supervisor, "queue", "State", rpc.None{})
			return err == nil && (st.Secret == text || slices.Contains(st.Updates, text))
		})
	}
	if err := s.Update(t.Context(), "nobody", config{}, ""); !errors.Is(err, ErrNoSuch) {
		t.Errorf("a process that is not there: %v", err)
	}
}

// TestReplaceClosesListeners: sockets that the next generation has not are
// closed, and those that it shares stay open.
func TestReplaceClosesListeners(t *testing.T) {
	var files []*os.File
	for range 3 {
		f, err := Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		files = append(files, f)
	}
	with := func(c config, listen ...*os.File) []Spec {
		g := generation(c, config{})
		for _, f := range listen {
			g[0].Listeners = append(g[0].Listeners, Listener{f.Name(), f})
		}
		return g
	}
	s := startAround(t, config{}, with(config{}, files[0], files[1]), Options{})
	open := func(want ...bool) {
		t.Helper()
		for i, f := range files {
			if _, err := f.Stat(); (err == nil) != want[i] {
				t.Errorf("socket %d: %v, want open: %v", i, err, want[i])
			}
		}
	}
	if err := s.Replace(t.Context(), with(config{Fail: "no"}, files[1], files[2])); err == nil {
		t.Error("replaced")
	}
	open(true, true, true)
	if err := s.Replace(t.Context(), with(config{}, files[1], files[2])); err != nil {
		t.Error(err)
	}
	open(false, true, true)
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
