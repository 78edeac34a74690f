package privsep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tabard/internal/privsep/fdpass"
	"tabard/internal/rpc"
)

// supervisorVar makes the test binary a supervisor with one process that
// journals to the file it names.
const supervisorVar = "TABARD_PRIVSEP_TEST_SUPERVISOR"

func runSupervisor(journal string) error {
	s, err := New([]Spec{{Name: "orphan", Init: config{Journal: journal}}, {Name: "deaf orphan", Init: config{Deaf: true}}}, nil, Options{
		Log: slog.New(slog.DiscardHandler), StopTimeout: 200 * time.Millisecond,
		Ready: func() { fmt.Println("ready") },
	})
	if err != nil {
		return err
	}
	return s.Run(context.Background())
}

// When the supervisor is killed, its processes stop, and a deaf one ends too.
func TestOrphansStop(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), supervisorVar+"="+journal)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready [6]byte
	if _, err := io.ReadFull(out, ready[:]); err != nil || string(ready[:]) != "ready\n" {
		t.Fatalf("%q, %v", ready, err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Every process has this pipe as its standard output: it ends with the last.
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("output %q, %v", rest, err)
	}
	_ = cmd.Wait()
	if b, err := os.ReadFile(journal); string(b) != "orphan\n" {
		t.Errorf("the process did not stop cleanly: %q, %v", b, err)
	}
}

// A program that claims to be a child, without a supervisor, says so.
func TestAttachWithoutSupervisor(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Args = []string{"tabard: smtpd"}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "not started by the supervisor") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestChildName(t *testing.T) {
	for _, tt := range []struct {
		args []string
		name string
		ok   bool
	}{
		{nil, "", false}, {[]string{"tabard", "run"}, "tabard", false}, {[]string{"/usr/bin/tabard: x"}, "/usr/bin/tabard: x", false},
		{[]string{"tabard: smtpd"}, "smtpd", true}, {[]string{"tabard: deliver 1000"}, "deliver 1000", true},
	} {
		if name, ok := ChildName(tt.args); name != tt.name || ok != tt.ok {
			t.Errorf("%q: %q, %v", tt.args, name, ok)
		}
	}
}

// FuzzSupervisor feeds the supervisor's side of a control socket.
func FuzzSupervisor(f *testing.F) {
	coding, err := rpc.NewCoding()
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range []up{{Kind: upReady}, {Kind: upFailed, Text: "a\nb\xff"}, {Kind: upRequest, ID: 1, Text: "x", Data: []byte{1}}, {Kind: upLayers, Layers: []Layer{{Name: "x"}}}, {Kind: upRested}, {Kind: upUpdated, ID: 1}, {Kind: 77}} {
		body, err := coding.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte{0, 0, 0, byte(len(body) + 1), 0}, body...))
	}
	s := &Supervisor{coding: coding, opts: Options{Log: slog.New(slog.DiscardHandler)}}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxUp {
			return
		}
		near, far, err := fdpass.Pair()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := fdpass.FromFile(near, maxDown, maxUp)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write(data); err != nil {
			t.Fatal(err)
		}
		far.Close()
		p := newProcess(Spec{Name: "x", OnRequest: func(context.Context, Request) (any, error) { return nil, nil }}, false)
		inst := &instance{conn: conn, kill: func() {}, rested: newEvent(), updated: map[uint64]*event{1: newEvent()}}
		s.listen(p, inst)
		conn.Close()
		if len(inst.words) > maxWords || strings.ContainsAny(inst.words, "\n\r\x00") || len(inst.layers) > maxLayers {
			t.Errorf("words %q, layers %d", inst.words, len(inst.layers))
		}
	})
}
