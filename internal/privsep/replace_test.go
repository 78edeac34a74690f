package privsep

import (
	"strings"
	"syscall"
	"testing"

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
	specs := generation(config{}, config{})
	specs = []Spec{specs[0], {Name: "queue", Init: config{}}, specs[1]}
	return run(t, specs, []Edge{{"in", "front", "back"}, {"local", "queue", "back"}}, Options{})
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

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
