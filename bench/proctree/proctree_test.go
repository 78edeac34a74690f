package proctree

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestTreeFindsChildren(t *testing.T) {
	cmd := exec.Command("cat")
	cmd.Args[0] = "title of a child"
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids, err := Find(os.Getpid(), "title of a child")
	if err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("Find = %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	if cpu, err := CPU(os.Getpid()); err != nil || cpu < 0 {
		t.Errorf("CPU = %v, %v", cpu, err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestHolds(t *testing.T) {
	// Built at run time, so that neither the needle nor its absent sister is in
	// the program's text.
	needle := bytes.Repeat([]byte("needle-in-memory."), 4)
	kept := bytes.Clone(needle)
	if ok, err := Holds(os.Getpid(), needle); err != nil || !ok {
		t.Errorf("own memory: %v, %v; want found", ok, err)
	}
	other := exec.Command("cat")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if ok, err := Holds(other.Process.Pid, needle); err != nil || ok {
		t.Errorf("another's memory: %v, %v; want not found", ok, err)
	}
	_ = in.Close()
	_ = other.Wait()
	if !strings.HasPrefix(string(kept), "needle") {
		t.Error("needle lost")
	}
}
