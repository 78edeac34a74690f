package privsep

import (
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tabard/internal/rpc"
)

const nobody = 65534

// held returns the layers by whether they are held.
func held(layers []Layer) (yes, no []string) {
	for _, l := range layers {
		if l.Held {
			yes = append(yes, l.Name)
		} else {
			no = append(no, l.Name+": "+l.Reason)
		}
	}
	return yes, no
}

// withCgo reports whether this program uses cgo, as it has to for -race. Tabard
// is built without.
func withCgo(t *testing.T) bool {
	t.Helper()
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("no build information")
	}
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
}

// Both with and without root, what the process reports is what is in force.
func TestDropPrivileges(t *testing.T) {
	specs := []Spec{{
		Name: "smtpd", Init: config{Drop: true, Secret: "mine"}, Credential: &Credential{UID: nobody, GID: nobody},
		Chroot: EmptyRoot, Undumpable: true,
	}}
	s := run(t, specs, nil, Options{})
	st := ask[rpc.None, state](t, s.Supervisor, "smtpd", "State", rpc.None{})
	var layers []Layer
	eventually(t, "the layers are reported", func() bool {
		layers = process1(s.Supervisor, "smtpd").Layers
		return len(layers) == 5
	})
	yes, no := held(layers)
	confined := os.Geteuid() == 0
	for _, name := range []string{"own user", "empty root directory"} {
		if slices.Contains(yes, name) != confined {
			t.Errorf("layer %s: held %q, not held %q", name, yes, no)
		}
	}
	if confined {
		if st.UID != nobody || st.GID != nobody || !slices.Equal(st.Groups, []int{nobody}) || len(st.Root) > 0 || st.RootErr == "" && st.Create == "" {
			t.Errorf("confined process: %+v", st)
		}
	} else if st.UID != os.Geteuid() || len(st.Root) == 0 {
		t.Errorf("unconfined process: %+v", st)
	}
	if slices.Contains(yes, "undumpable") != st.Undumpable || st.Undumpable != (runtime.GOOS == "linux") {
		t.Errorf("undumpable %v, layers %q", st.Undumpable, yes)
	}
	if slices.Contains(yes, "no new privileges") != st.NoNewPrivs || st.NoNewPrivs != (runtime.GOOS == "linux" && !withCgo(t)) {
		t.Errorf("no new privileges %v, layers %q and not %q", st.NoNewPrivs, yes, no)
	}
	if st.Secret != "mine" || st.Create == "" && confined {
		t.Errorf("state %+v", st)
	}
	// The supervisor keeps its powers.
	before := pid(s.Supervisor, "smtpd")
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "smtpd is confined again", func() bool {
		p := process1(s.Supervisor, "smtpd")
		return p.PID != before && p.State == StateRunning && len(p.Layers) == 5
	})
}

func TestNothingIsDroppedUnasked(t *testing.T) {
	s := run(t, []Spec{{Name: "lookup", Init: config{Drop: true}, SetuidPrograms: true}}, nil, Options{})
	st := ask[rpc.None, state](t, s.Supervisor, "lookup", "State", rpc.None{})
	if st.UID != os.Geteuid() || st.NoNewPrivs || len(st.Root) == 0 {
		t.Errorf("state %+v", st)
	}
	yes, no := held(process1(s.Supervisor, "lookup").Layers)
	if len(yes) != 0 || len(no) != 1 || !strings.HasPrefix(no[0], "own user: ") {
		t.Errorf("held %q, not held %q", yes, no)
	}
}

func TestBecomeRefusesRoot(t *testing.T) {
	for _, cr := range []Credential{{0, 0, nil}, {0, nobody, nil}, {nobody, 0, nil}, {-1, -1, nil}} {
		if err := become(cr); err == nil || !strings.Contains(err.Error(), "refusing") {
			t.Errorf("%+v: %v", cr, err)
		}
	}
}

func TestAMissingRootDirectoryIsFatal(t *testing.T) {
	missing := t.TempDir() + "/missing"
	r := launch(t, []Spec{{Name: "smtpd", Init: config{Drop: true}, Credential: &Credential{UID: nobody, GID: nobody}, Chroot: missing}}, nil, Options{})
	if os.Geteuid() != 0 { // nothing to enter
		<-r.isReady
		return
	}
	if err := <-r.done; err == nil || !strings.Contains(err.Error(), "drop privileges") {
		t.Errorf("Run: %v", err)
	}
}

func TestLookupUser(t *testing.T) {
	cr, err := LookupUser("root")
	if err != nil || cr.UID != 0 || cr.GID != 0 {
		t.Errorf("root: %+v, %v", cr, err)
	}
	if _, err := LookupUser("no such user"); err == nil {
		t.Error("an unknown user was found")
	}
}
