//go:build linux && (amd64 || arm64)

package sandbox

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"

	"tabard/internal/sandbox/sandboxtest"
)

// cageVar makes this program a process with the profile in it.
const cageVar = "TABARD_TEST_CAGE"

// cage is what such a process is told.
type cage struct {
	Mode    Mode
	Profile Profile
	// Old makes the kernel look as if it had none of these calls.
	Old []string
}

func TestMain(m *testing.M) {
	if text := os.Getenv(cageVar); text != "" {
		if err := runCage(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runCage applies a profile, prints the layers, makes attempts as it is told, and
// goes on until there are no more.
func runCage(text string) error {
	var c cage
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	if len(c.Old) > 0 {
		if err := sandboxtest.Forget(c.Old...); err != nil {
			return err
		}
	}
	spin() // threads that are there before
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(apply(c.Mode, c.Profile)); err != nil {
		return err
	}
	in := json.NewDecoder(os.Stdin)
	for {
		var a sandboxtest.Attempt
		if err := in.Decode(&a); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if a.What == "spin" { // new threads, and the collector
			spin()
			runtime.GC()
		}
		if err := out.Encode(sandboxtest.Try(a)); err != nil {
			return err
		}
	}
}

// spin has several threads at once.
func spin() {
	const n = 8
	meet, leave := make(chan struct{}), make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			meet <- struct{}{}
			<-leave
		}()
	}
	for range n {
		<-meet
	}
	close(leave)
}

// caged is a process with a profile.
type caged struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     *json.Encoder
	out    *json.Decoder
	layers map[string]Layer
}

func start(t *testing.T, c cage) *caged {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), cageVar+"="+string(text))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process ended with %v", err)
		}
	})
	g := &caged{t: t, cmd: cmd, in: json.NewEncoder(stdin), out: json.NewDecoder(bufio.NewReader(stdout)), layers: make(map[string]Layer)}
	var layers []Layer
	if err := g.out.Decode(&layers); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		g.layers[l.Name] = l
	}
	return g
}

// try makes one attempt inside.
func (g *caged) try(what, arg string) string {
	g.t.Helper()
	if err := g.in.Encode(sandboxtest.Attempt{What: what, Arg: arg}); err != nil {
		g.t.Fatal(err)
	}
	var result string
	if err := g.out.Decode(&result); err != nil {
		g.t.Fatal(err)
	}
	return result
}

// world is what processes try to reach.
type world struct {
	file, dir, tcp, udp, unix, abstract string
	port                                uint16
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{dir: t.TempDir(), abstract: fmt.Sprintf("@tabard-sandbox-%d", os.Getpid())}
	w.file = filepath.Join(w.dir, "key.pem")
	if err := os.WriteFile(w.file, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.unix = filepath.Join(w.dir, "sock")
	for _, at := range []struct {
		network, addr string
		to            *string
	}{{"tcp", "127.0.0.1:0", &w.tcp}, {"unix", w.unix, nil}, {"unix", w.abstract, nil}} {
		l, err := net.Listen(at.network, at.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if at.to != nil {
			*at.to = l.Addr().String()
			w.port = uint16(l.Addr().(*net.TCPAddr).Port)
		}
	}
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	w.udp = p.LocalAddr().String()
	return w
}

// attempts returns each attempt by name. All succeed in a process without a
// sandbox, see TestAttemptsSucceedWithoutSandbox.
func (w world) attempts() map[string][2]string {
	other := strconv.Itoa(os.Getpid())
	return map[string][2]string{
		"open": {sandboxtest.Open, w.file}, "create": {sandboxtest.Create, filepath.Join(w.dir, "new")},
		"list": {sandboxtest.Open, "/"},
		"exec": {sandboxtest.Exec, "/bin/true"}, "memfile": {sandboxtest.MemFile, ""},
		"tcp": {sandboxtest.TCP, w.tcp}, "mptcp": {sandboxtest.MPTCP, w.tcp}, "udp": {sandboxtest.UDP, w.udp},
		"unix": {sandboxtest.Unix, w.unix}, "abstract": {sandboxtest.Unix, w.abstract}, "listen": {sandboxtest.Listen, "127.0.0.1:0"},
		"netlink": {sandboxtest.Netlink, ""}, "io_uring": {sandboxtest.IOURing, ""},
		"ptrace": {sandboxtest.Ptrace, other}, "readmem": {sandboxtest.ReadMem, other}, "vmread": {sandboxtest.VMRead, other},
		"signal": {sandboxtest.Signal, other}, "dumpable": {sandboxtest.Dumpable, ""},
	}
}

// lacks says what this kernel cannot show.
func lacks(t *testing.T, abi int) bool {
	t.Helper()
	have := landlockABI()
	if have < abi {
		t.Logf("NOT SHOWN on this kernel: its landlock is version %d, the rest of this test needs %d", have, abi)
	}
	return have < abi
}

// Every attempt can succeed: what forbids them below is the sandbox. A few depend
// on how the kernel was built.
func TestAttemptsSucceedWithoutSandbox(t *testing.T) {
	w := newWorld(t)
	for _, mode := range []Mode{"", Off} {
		g := start(t, cage{Mode: mode})
		for name, a := range w.attempts() {
			got := g.try(a[0], a[1])
			switch {
			case got == "":
			case slices.Contains([]string{"mptcp", "io_uring", "ptrace", "vmread", "readmem"}, name):
				t.Logf("NOT SHOWN on this kernel: %s fails without a sandbox too: %s", name, got)
			default:
				t.Errorf("mode %q: %s: %s", mode, name, got)
			}
		}
	}
}

func TestProfiles(t *testing.T) {
	if lacks(t, abiScope) {
		return
	}
	w := newWorld(t)
	all := w.attempts()
	// What a process may do; everything else has to fail.
	for name, c := range map[string]struct {
		p      Profile
		may    []string
		waived []string
	}{
		"sockets only":      {Profile{Accepts: true}, nil, nil},
		"internet":          {Profile{Connects: Internet}, []string{"tcp", "udp"}, nil},
		"internet but one":  {Profile{Connects: Internet, ClosedPorts: []uint16{w.port}}, []string{"udp"}, nil},
		"a directory":       {Profile{Writes: []string{w.dir}}, []string{"open", "create"}, nil},
		"a directory to be": {Profile{Writes: []string{filepath.Join(w.dir, "not", "yet")}}, []string{"open", "create"}, nil},
		"another directory": {Profile{Writes: []string{t.TempDir()}}, nil, nil},
		"tables": {Profile{Reads: true, Writes: []string{t.TempDir()}, Connects: Anywhere},
			[]string{"open", "list", "tcp", "udp", "unix", "abstract"}, []string{layerScope}},
		"all files": {Profile{AllFiles: true, Connects: Anywhere},
			[]string{"open", "list", "create", "tcp", "udp", "unix", "abstract"}, []string{layerFiles, layerScope}},
		"programs": {Profile{Reads: true, Connects: Anywhere, Programs: "table programs"},
			[]string{"open", "list", "create", "exec", "memfile", "tcp", "mptcp", "udp", "unix", "abstract", "listen", "netlink", "readmem", "signal", "dumpable"},
			[]string{layerFiles, layerTCP, layerScope}},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, cage{Mode: Require, Profile: c.p})
			for _, layer := range []string{layerFiles, layerTCP, layerScope, layerSeccomp} {
				l, ok := g.layers[layer]
				if isWaived := slices.Contains(c.waived, layer); !ok || l.Held == isWaived || l.Waived != isWaived || isWaived && l.Reason == "" {
					t.Errorf("layer %s: %+v", layer, l)
				}
			}
			for what, a := range all {
				got, may := g.try(a[0], a[1]), slices.Contains(c.may, what)
				if (got == "") != may {
					t.Errorf("%s: %q, want success: %v", what, got, may)
				}
				if got != "" && !slices.Contains([]string{"EPERM", "EACCES", "ENOSYS"}, got) {
					t.Errorf("%s fails for another reason: %s", what, got)
				}
			}
		})
	}
}

// The layers hold for threads that were there before and those that come, and the
// runtime can live with them.
func TestAllThreads(t *testing.T) {
	g := start(t, cage{Mode: BestEffort, Profile: Profile{}})
	if l := g.layers[layerSeccomp]; !l.Held {
		t.Fatalf("%+v", l)
	}
	for range 3 {
		g.try("spin", "")
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", g.cmd.Process.Pid))
	if err != nil || len(tasks) < 8 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s lacks %q", task, want)
			}
		}
	}
}

// What a kernel lacks is said, layer by layer, and the others hold all the same.
func TestMissingLayersAreNoticed(t *testing.T) {
	w := newWorld(t)
	g := start(t, cage{Mode: BestEffort, Old: sandboxtest.Landlock()})
	for _, name := range []string{layerFiles, layerTCP, layerScope} {
		if l := g.layers[name]; l.Held || l.Waived || !strings.Contains(l.Reason, "no landlock") {
			t.Errorf("without landlock: %+v", l)
		}
	}
	if l := g.layers[layerSeccomp]; !l.Held {
		t.Errorf("without landlock: %+v", l)
	}
	if got := g.try(sandboxtest.Open, w.file); got != "EPERM" {
		t.Errorf("without landlock, open: %q", got)
	}
	if lacks(t, abiScope) {
		return
	}
	g = start(t, cage{Mode: BestEffort, Old: []string{"seccomp"}})
	if l := g.layers[layerSeccomp]; l.Held || l.Waived || l.Reason == "" {
		t.Errorf("without seccomp: %+v", l)
	}
	for _, name := range []string{layerFiles, layerTCP, layerScope} {
		if l := g.layers[name]; !l.Held {
			t.Errorf("without seccomp: %+v", l)
		}
	}
	if got := g.try(sandboxtest.Open, w.file); got != "EACCES" {
		t.Errorf("without seccomp, open: %q", got)
	}
	if got := g.try(sandboxtest.MPTCP, w.tcp); got != "" {
		t.Errorf("without seccomp, MPTCP: %q; landlock does not know it, which is why seccomp is needed", got)
	}
}

// The attempts of tryFilter notice a filter that is not there.
func TestTryFilterCanFail(t *testing.T) {
	if err := tryFilter(Profile{}); err == nil {
		t.Error("the attempts fail without a filter")
	}
	if err := (&attempts{abstract: -1}).file(Profile{}); err == nil {
		t.Error("opening / is said to be forbidden")
	}
	if err := (&attempts{abstract: -1}).tcp(Profile{}); err == nil {
		t.Error("binding is said to be forbidden")
	}
}

// Every name in the lists is one of a call, on one architecture at least, and
// every profile makes a filter on both.
func TestCallsExist(t *testing.T) {
	amd64, arm64 := arch.X86_64, arch.AARCH64
	for _, name := range slices.Concat(runtimeCalls(), socketCalls(), fileCalls(), dangerous()) {
		_, a := amd64.SyscallNames[name]
		_, b := arm64.SyscallNames[name]
		if !a && !b {
			t.Errorf("there is no call %q", name)
		}
	}
	for _, info := range []*arch.Info{amd64, arm64} {
		for _, p := range []Profile{{}, {Accepts: true}, {Reads: true, Connects: Anywhere}, {Programs: "any"}} {
			for _, group := range policy(p, info).Syscalls {
				for _, name := range group.Names {
					if _, ok := info.SyscallNames[name]; !ok {
						t.Errorf("%s has no call %q", info.Name, name)
					}
				}
			}
		}
	}
}

// A process of another user may be confined in the same way.
func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		return // as the other tests do already
	}
	if lacks(t, abiScope) {
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the other user has to get there
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "cage")
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, text, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := json.Marshal(cage{Mode: Require})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), cageVar+"="+string(c))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var layers []Layer
	if err := json.Unmarshal(out, &layers); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if !l.Held {
			t.Errorf("%+v", l)
		}
	}
}
