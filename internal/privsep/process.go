package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"tabard/internal/privsep/fdpass"
	"tabard/internal/rpc"
)

// process is a Spec and what became of it.
type process struct {
	spec  Spec
	once  bool          // started by Spawn
	added bool          // started by Add
	gen   int           // its generation; 0: it outlives them all
	ready chan struct{} // closed when it is ready for the first time
	done  chan struct{} // closed when it has ended for good
	// failed takes the one error of a process that could not be started at all.
	failed  chan error
	removed *event // by Remove

	// Guarded by Supervisor.mu.
	launched bool      // supervise runs
	active   bool      // it may take work
	retired  bool      // another has taken its place: it is not started again
	update   down      // the last one; later lives begin with what it says
	inst     *instance // nil while it does not run
	state    State
	since    time.Time
	restarts int
	failures int // in a row
	late     int // of its lives that were killed since they were not ready, in a row
	lastExit string
}

func newProcess(spec Spec, once bool) *process {
	return &process{spec: spec, once: once, active: true, state: StateWaiting, ready: make(chan struct{}), done: make(chan struct{}), failed: make(chan error, 1), removed: newEvent()}
}

// everReady reports whether p was ready in any of its lives.
func (p *process) everReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// instance is one life of a process.
type instance struct {
	cmd     *exec.Cmd
	kill    func() // without effect once it has ended
	conn    *fdpass.Conn
	started time.Time
	reading sync.WaitGroup
	ended   chan struct{}

	// Guarded by Supervisor.mu.
	words   string // its last
	layers  []Layer
	rested  *event
	updated map[uint64]*event // updates that are waited for
}

// event is what a child tells, once or more often.
type event struct {
	happened chan struct{} // closed by note
	once     sync.Once
}

func newEvent() *event { return &event{happened: make(chan struct{})} }

func (e *event) note() { e.once.Do(func() { close(e.happened) }) }

// supervise keeps p running until the supervisor stops.
func (s *Supervisor) supervise(p *process) {
	defer close(p.done)
	for {
		err := s.live(p)
		delay, again := s.ended(p, err)
		if !again {
			return
		}
		select {
		case <-time.After(delay):
		case <-p.removed.happened:
		case <-s.halt:
			s.mu.Lock()
			p.state = StateStopped
			s.mu.Unlock()
			return
		}
		if s.isRetired(p) {
			return
		}
	}
}

// live runs p once and says why it ended.
func (s *Supervisor) live(p *process) error {
	s.mu.Lock()
	p.state, p.since = StateStarting, time.Now()
	s.mu.Unlock()
	inst, err := s.start(p)
	if err != nil {
		return err
	}
	inst.reading.Go(func() { s.listen(p, inst) })
	inTime := s.boundStart(p, inst)
	err = inst.cmd.Wait()
	inTime()
	// What it said last is still to be read; nothing else holds the socket.
	_ = inst.conn.SetDeadline(time.Now().Add(time.Second))
	inst.reading.Wait()
	inst.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.inst = nil
	close(inst.ended)
	switch {
	case inst.words != "" && err != nil:
		return fmt.Errorf("%s (%w)", inst.words, err)
	case err == nil:
		return errEnded
	}
	return err
}

var errEnded = errors.New("exit status 0")

// start executes the program, says hello, and connects its edges.
func (s *Supervisor) start(p *process) (*instance, error) {
	s.mu.Lock()
	spec, told, candidate := p.spec, p.update.ID, !p.active
	s.mu.Unlock()
	init, err := s.coding.Marshal(spec.Init)
	if err != nil {
		return nil, fmt.Errorf("encode its configuration: %w", err)
	}
	if len(init) > maxInit {
		return nil, fmt.Errorf("its configuration of %d bytes: %w", len(init), rpc.ErrTooLarge)
	}
	near, far, err := fdpass.Pair()
	if err != nil {
		return nil, err
	}
	defer far.Close()
	conn, err := fdpass.FromFile(near, maxDown, maxUp)
	if err != nil {
		return nil, err
	}
	inst := newInstance(conn, s.command(spec, far))
	if err := inst.cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	inst.kill = func() { _ = inst.cmd.Process.Kill() }
	if err := s.greet(spec, init, candidate, inst); err != nil {
		// Its exit status says more than a write that failed.
		inst.kill()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.inst = inst
	if s.stopping || p.retired {
		inst.kill()
		return inst, nil
	}
	s.connectAll(p)
	if p.update.ID != told { // it began with what was before
		_ = inst.give(p.update, nil)
	}
	if p.active {
		s.activate(p)
	}
	return inst, nil
}

func newInstance(conn *fdpass.Conn, cmd *exec.Cmd) *instance {
	return &instance{
		conn: conn, cmd: cmd, started: time.Now(), ended: make(chan struct{}),
		rested: newEvent(), updated: map[uint64]*event{},
	}
}

// activate lets p take work. The caller holds mu.
func (s *Supervisor) activate(p *process) {
	if p.active = true; p.inst != nil {
		_ = p.inst.give(down{Kind: downActivate}, nil) // one that takes nothing is started again
	}
}

func (s *Supervisor) command(spec Spec, control *os.File) *exec.Cmd {
	cmd := exec.Command(s.exe)
	cmd.Args = []string{titlePrefix + spec.Name}
	cmd.Dir = "/"
	cmd.Env = spec.Env
	if spec.Env == nil {
		cmd.Env = minimalEnv()
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{control}
	return cmd
}

// minimalEnv passes on what steers the runtime and the clock, nothing else.
func minimalEnv() []string {
	env := []string{} // not nil, which means everything
	for _, name := range []string{"PATH", "TZ", "LANG", "LC_ALL", "GODEBUG", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GOTRACEBACK", "GOCOVERDIR", "GORACE"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// greet sends what a child needs before it can begin.
func (s *Supervisor) greet(spec Spec, init []byte, candidate bool, inst *instance) error {
	data, err := s.coding.Marshal(hello{
		Name: spec.Name, Init: init, Listeners: len(spec.Listeners), Credential: spec.Credential, Chroot: spec.Chroot,
		Undumpable: spec.Undumpable, SetuidPrograms: spec.SetuidPrograms, Candidate: candidate,
		Sandbox: spec.Sandbox,
	})
	if err != nil {
		return err
	}
	if err := inst.conn.Send(down{Kind: downHello, Data: data}, nil); err != nil {
		return err
	}
	for _, l := range spec.Listeners {
		if err := inst.conn.Send(down{Kind: downListener, Name: l.Name}, l.File); err != nil {
			return err
		}
	}
	return nil
}

// listen reads what a child says until it ends. A child that breaks the
// protocol is killed.
func (s *Supervisor) listen(p *process, inst *instance) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	slots := make(chan struct{}, maxRequests)
	s.mu.Lock()
	spec := p.spec
	s.mu.Unlock()
	for {
		var m up
		if err := inst.conn.Recv(&m); err != nil {
			if errors.Is(err, fdpass.ErrFormat) {
				s.opts.Log.Error("process broke the control protocol", "process", p.spec.Name, "error", err)
			}
			inst.kill() // without its control socket it must not go on
			return
		}
		if m.Kind != upRequest {
			s.note(p, inst, m)
			continue
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			s.answer(ctx, spec, inst, m)
		}()
	}
}

// note takes down what a child says about itself.
func (s *Supervisor) note(p *process, inst *instance, m up) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m.Kind {
	case upReady:
		if p.state == StateStarting {
			p.state, p.late = StateRunning, 0
		}
		if !p.everReady() {
			close(p.ready)
		}
	case upLayers:
		inst.layers = boundLayers(m.Layers)
	case upFailed:
		inst.words = oneLine(m.Text)
	case upRested:
		inst.rested.note()
	case upUpdated:
		if done := inst.updated[m.ID]; done != nil {
			done.note()
		}
	}
}

// answer carries out a request, if the process may make any.
func (s *Supervisor) answer(ctx context.Context, spec Spec, inst *instance, m up) {
	reply := down{Kind: downAnswer, ID: m.ID}
	if spec.OnRequest == nil {
		reply.Error = "this process may not ask the supervisor"
	} else if result, err := spec.OnRequest(ctx, Request{From: spec.Name, Kind: m.Text, data: m.Data, code: s.coding}); err != nil {
		reply.Error = oneLine(err.Error())
	} else if reply.Data, err = s.coding.Marshal(result); err != nil {
		reply.Error = oneLine(err.Error())
	}
	if err := inst.conn.Send(reply, nil); err != nil {
		s.opts.Log.Debug("answer not delivered", "process", spec.Name, "error", err)
	}
}
