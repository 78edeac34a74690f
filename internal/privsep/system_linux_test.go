package privsep

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tabard/internal/rpc"
)

func TestTitlesAndEnvironment(t *testing.T) {
	t.Setenv("PGPASSWORD", "secret")
	t.Setenv("TZ", "UTC")
	s := run(t, []Spec{{Name: "plain", Init: config{}}, {Name: "own env", Init: config{}, Env: []string{"A=b"}}}, nil, Options{})
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid(s.Supervisor, "plain")) + "/cmdline")
	if err != nil || string(cmdline) != "tabard: plain\x00" {
		t.Errorf("title %q, %v", cmdline, err)
	}
	env := ask[rpc.None, []string](t, s.Supervisor, "plain", "Env", rpc.None{})
	if slices.Contains(env, "PGPASSWORD=secret") || !slices.Contains(env, "TZ=UTC") {
		t.Errorf("environment: %q", env)
	}
	if env := ask[rpc.None, []string](t, s.Supervisor, "own env", "Env", rpc.None{}); !slices.Equal(env, []string{"A=b"}) {
		t.Errorf("own environment: %q", env)
	}
}

func TestOnlyMeantDescriptorsReachAChild(t *testing.T) {
	leak, err := os.Open(os.DevNull) // the supervisor holds other things
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	// So does whoever started it, and did not close them.
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	l, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	specs := []Spec{
		{Name: "front", Init: config{}, Listeners: []Listener{{"smtp", l}}},
		{Name: "back", Init: config{}},
	}
	s := run(t, specs, pairOfTwo, Options{})
	for process, want := range map[string]int{"front": 1 + 1 + 1 + 1, "back": 1 + 1 + 1} { // control, edge, this question, listener
		ask[rpc.None, int](t, s.Supervisor, "front", "PeerPID", rpc.None{})      // the edge has arrived
		eventually(t, process+" has its sockets and nothing else", func() bool { // a question before may not be closed yet
			sockets, other := classify(ask[rpc.None, []string](t, s.Supervisor, process, "Files", rpc.None{}))
			if len(other) > 0 {
				t.Fatalf("%s also has %q", process, other)
			}
			return sockets == want
		})
		if got := lines(ask[rpc.None, string](t, s.Supervisor, process, "Inherited", rpc.None{})); !slices.Equal(got, []string{"0", "1", "2", "3"}) { // 3 is ls reading
			t.Errorf("a program executed by %s has %q", process, got)
		}
	}
}

// classify counts the sockets among open descriptors, and names those that
// neither are sockets nor belong to the Go runtime.
func classify(files []string) (sockets int, other []string) {
	for _, f := range files {
		fd, to, _ := strings.Cut(f, " ")
		switch {
		case fd == "0" || fd == "1" || fd == "2": // standard
		case strings.HasPrefix(to, "socket:"):
			sockets++
		case strings.Contains(to, "anon_inode:[event"), strings.Contains(to, "pidfd"), strings.HasPrefix(to, "/sys/fs/cgroup/"), strings.HasPrefix(to, "/proc/"):
		default:
			other = append(other, f)
		}
	}
	return sockets, other
}

func prctls() (noNewPrivs, undumpable bool) {
	n, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	d, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return n == 1, d == 0
}
