package privsep

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tabard/internal/rpc"
	"tabard/internal/sandbox"
)

func TestMain(m *testing.M) {
	if _, child := ChildName(os.Args); child {
		os.Exit(Main(runProbe))
	}
	if journal := os.Getenv(supervisorVar); journal != "" {
		if err := runSupervisor(journal); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// config is what the tests tell a child to be.
type config struct {
	Fail    string // end with this error before being ready
	Until   string // end with an error before being ready while there is no such file
	Hang    string // hang before being ready while there is no such file
	Exit    bool   // end without a word before being ready
	Drop    bool   // drop privileges
	Journal string // append the name to this file when told to stop
	Deaf    bool   // do not stop
	Never   bool   // never get ready
	Garbage bool   // break the control protocol
	Reach   sandbox.Reach
	Secret  string
	Table   []string
	Mute    bool   // never rest, and confirm updates only when asked to
	Rest    string // rest when somebody writes to this FIFO
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// probe is a process whose insides the tests can ask for.
type probe struct {
	c    *Child
	cfg  config
	link *rpc.Link
	quit chan struct{}

	mu      sync.Mutex
	updates []string
	confirm []func()
}

func runProbe(ctx context.Context, c *Child) error {
	p := &probe{c: c, link: rpc.NewLink("peer"), quit: make(chan struct{})}
	if err := c.Init(&p.cfg); err != nil {
		return err
	}
	switch {
	case p.cfg.Fail != "":
		return errors.New(p.cfg.Fail)
	case p.cfg.Until != "" && !exists(p.cfg.Until):
		return errors.New("not yet")
	case p.cfg.Hang != "" && !exists(p.cfg.Hang):
		select {} // deaf to all but SIGKILL
	case p.cfg.Exit:
		os.Exit(7)
	case p.cfg.Never:
		<-ctx.Done()
		return nil
	}
	srv := rpc.NewServer()
	if err := srv.Register("Probe", &service{p}); err != nil {
		return err
	}
	if p.cfg.Drop {
		if _, err := c.DropPrivileges(sandbox.Profile{Reads: true, Connects: p.cfg.Reach}); err != nil {
			return err
		}
	}
	c.OnEdge(func(e Endpoint) {
		if e.Client {
			p.link.Set(e.Conn)
			return
		}
		go srv.Serve(context.Background(), e.Conn)
	})
	c.OnUpdate(p.updated)
	go p.rest()
	if p.cfg.Garbage {
		c.conn.Send("not what the supervisor expects", nil)
	}
	if err := c.Ready(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-p.quit:
		return nil
	}
	if p.cfg.Deaf {
		select {}
	}
	return p.journal()
}

func (p *probe) updated(decode func(any) error, done func()) {
	var text string
	if err := decode(&text); err != nil {
		text = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.updates = append(p.updates, text)
	if !p.cfg.Mute {
		done()
		return
	}
	p.confirm = append(p.confirm, done)
}

func (p *probe) rest() {
	<-p.c.Retiring()
	if p.cfg.Rest != "" {
		f, err := os.Open(p.cfg.Rest)
		if err != nil {
			return
		}
		_ = f.Close()
	}
	if !p.cfg.Mute {
		_ = p.c.Rested()
	}
}

func (p *probe) active() bool {
	select {
	case <-p.c.Active():
		return true
	default:
		return false
	}
}

func (p *probe) journal() error {
	if p.cfg.Journal == "" {
		return nil
	}
	f, err := os.OpenFile(p.cfg.Journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, p.c.Name())
	return err
}

// service is a probe's RPC side; each method is one question.
type service struct{ p *probe }

func (s *service) PID(c *rpc.Call[rpc.None], r *rpc.Reply[int]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) (int, error) { return os.Getpid(), nil })
}

// PeerPID asks the process at the other end of the edge for its pid.
func (s *service) PeerPID(c *rpc.Call[rpc.None], r *rpc.Reply[int]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) (int, error) {
		return rpc.InvokeRetry[rpc.None, int](ctx, s.p.link, "Probe.PID", rpc.None{})
	})
}

// Files names the open descriptors.
func (s *service) Files(c *rpc.Call[rpc.None], r *rpc.Reply[[]string]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) ([]string, error) {
		links, err := filepath.Glob("/proc/self/fd/*")
		var files []string
		for _, l := range links {
			if to, err := os.Readlink(l); err == nil {
				files = append(files, filepath.Base(l)+" "+to)
			}
		}
		sort.Strings(files)
		return files, err
	})
}

// Inherited names the descriptors that a program executed by the process has.
func (s *service) Inherited(c *rpc.Call[rpc.None], r *rpc.Reply[string]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) (string, error) {
		out, err := exec.Command("/bin/ls", "/proc/self/fd").CombinedOutput()
		return string(out), err
	})
}

func (s *service) Env(c *rpc.Call[rpc.None], r *rpc.Reply[[]string]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) ([]string, error) { return os.Environ(), nil })
}

// State describes what the process may do.
type state struct {
	UID, GID   int
	Groups     []int
	Root       []string // what is in /
	RootErr    string
	Create     string // error of creating a file in /
	NoNewPrivs bool
	Undumpable bool
	Secret     string
	Entries    int
	Active     bool
	Updates    []string
}

func (s *service) State(c *rpc.Call[rpc.None], r *rpc.Reply[state]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) (state, error) {
		st := state{UID: os.Getuid(), GID: os.Getgid(), Secret: s.p.cfg.Secret, Entries: len(s.p.cfg.Table), Active: s.p.active()}
		s.p.mu.Lock()
		st.Updates = s.p.updates
		s.p.mu.Unlock()
		var err error
		if st.Groups, err = os.Getgroups(); err != nil {
			return st, err
		}
		entries, err := os.ReadDir("/")
		if err != nil {
			st.RootErr = err.Error()
		}
		for _, e := range entries {
			st.Root = append(st.Root, e.Name())
		}
		if err := os.WriteFile("/tabard-test", nil, 0o600); err != nil {
			st.Create = err.Error()
		} else {
			os.Remove("/tabard-test")
		}
		st.NoNewPrivs, st.Undumpable = prctls()
		return st, nil
	})
}

// Confirm says that the updates so far are in force.
func (s *service) Confirm(c *rpc.Call[rpc.None], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) (rpc.None, error) {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		for _, done := range s.p.confirm {
			done()
		}
		s.p.confirm = nil
		return rpc.None{}, nil
	})
}

// Quit ends the process as an idle one does.
func (s *service) Quit(c *rpc.Call[rpc.None], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) (rpc.None, error) {
		close(s.p.quit)
		return rpc.None{}, nil
	})
}

// Greet accepts one connection on a listener and writes the process' name.
func (s *service) Greet(c *rpc.Call[string], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, name string) (rpc.None, error) {
		l, err := s.p.c.Listener(name)
		if err != nil {
			return rpc.None{}, err
		}
		defer l.Close()
		conn, err := l.Accept()
		if err != nil {
			return rpc.None{}, err
		}
		defer conn.Close()
		_, err = conn.Write([]byte(s.p.c.Name()))
		return rpc.None{}, err
	})
}

// asked is a request to the supervisor on behalf of a test.
type asked struct{ Kind, Payload string }

func (s *service) Ask(c *rpc.Call[asked], r *rpc.Reply[string]) error {
	return rpc.Do(c, r, func(ctx context.Context, a asked) (string, error) {
		var answer string
		err := s.p.c.Request(ctx, a.Kind, a.Payload, &answer)
		return answer, err
	})
}

// Terminate sends the process the signals of a terminal and a service manager.
func (s *service) Terminate(c *rpc.Call[rpc.None], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(context.Context, rpc.None) (rpc.None, error) {
		var err error
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			err = errors.Join(err, syscall.Kill(os.Getpid(), sig))
		}
		return rpc.None{}, err
	})
}

// question connects to a process as the command line tools do, and asks.
func question[Req, Resp any](t *testing.T, s *Supervisor, process, method string, req Req) (Resp, error) {
	t.Helper()
	var zero Resp
	f, err := s.Connect(process, "control")
	if err != nil {
		return zero, err
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	c := rpc.NewClient(conn)
	defer c.Close()
	return rpc.Invoke[Req, Resp](t.Context(), c, "Probe."+method, req)
}

// ask is question where an error fails the test.
func ask[Req, Resp any](t *testing.T, s *Supervisor, process, method string, req Req) Resp {
	t.Helper()
	resp, err := question[Req, Resp](t, s, process, method, req)
	if err != nil {
		t.Fatalf("%s of %s: %v", method, process, err)
	}
	return resp
}

// pid returns the pid of a process, 0 when it does not run.
func pid(s *Supervisor, name string) int { return process1(s, name).PID }

func process1(s *Supervisor, name string) ProcessStatus {
	for _, p := range s.Status().Processes {
		if p.Name == name {
			return p
		}
	}
	return ProcessStatus{}
}

func lines(s string) []string { return strings.Fields(s) }
