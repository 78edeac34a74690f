package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tabard/table"
)

// Bounds of a program.
const (
	maxLine     = 1 << 20
	maxInFlight = 256
	// handshakeTime is how long a program may take to register.
	handshakeTime = 10 * time.Second
	// stallTime is how long a program may say nothing at all while it has
	// questions.
	stallTime = 5 * time.Second
)

// child is one run of a program.
type child struct {
	name string // of the table
	log  *slog.Logger
	cmd  *exec.Cmd
	in   *os.File // its standard input
	out  *os.File // its standard output

	ready chan struct{} // closed when it has registered
	can   registration  // valid then

	dead chan struct{} // closed when it is of no use any more
	err  error         // why, valid then
	once sync.Once

	slots chan struct{} // questions in flight
	wmu   sync.Mutex    // keeps lines to the program apart

	mu      sync.Mutex
	asked   uint64 // ids given out
	pending map[string]pending
	heard   time.Time // when it last said something
	watch   map[chan table.Change]bool
}

// pending is a question in flight.
type pending struct {
	op op
	ch chan reply
}

// launch starts a program. It returns before the handshake is over.
func launch(name string, c command, log *slog.Logger) (*child, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close())
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close(), outR.Close(), outW.Close())
	}
	cmd := &exec.Cmd{
		Path: c.path, Args: c.argv, Dir: "/", Stdin: inR, Stdout: outW, Stderr: errW, SysProcAttr: ownGroup(),
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/"},
	}
	err = start(cmd)
	_, _, _ = inR.Close(), outW.Close(), errW.Close() // the program has them
	if err != nil {
		return nil, errors.Join(err, inW.Close(), outR.Close(), errR.Close())
	}
	ch := &child{
		name: name, log: log.With("table", name, "pid", cmd.Process.Pid), cmd: cmd, in: inW, out: outR,
		ready: make(chan struct{}), dead: make(chan struct{}), slots: make(chan struct{}, maxInFlight),
		pending: make(map[string]pending), watch: make(map[chan table.Change]bool),
		can: registration{services: make(map[table.Service]bool)},
	}
	go relayErrors(errR, ch.log)
	go func() { ch.end(ch.read()) }()
	return ch, nil
}

// end makes the program of no use. The first reason counts.
func (c *child) end(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.dead)
		kill(c.cmd)
		_, _ = c.in.Close(), c.out.Close() // nothing is left to lose
	})
}

// read does the handshake and takes answers until the program ends.
func (c *child) read() error {
	if err := c.out.SetReadDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	if err := c.write("config|smtpd-version|7.8.0\nconfig|protocol|" + protocolVersion + "\nconfig|tablename|" + c.name + "\nconfig|ready\n"); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	r := bufio.NewReaderSize(c.out, 64<<10)
	for {
		line, err := readLine(r)
		if err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		done, err := c.can.add(line)
		if err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		if done {
			break
		}
	}
	if len(c.can.unknown) > 0 {
		c.log.Warn("table program registers services that are not known", "services", strings.Join(c.can.unknown, " "))
	}
	if err := c.out.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	close(c.ready)
	for {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		if err := c.take(line); err != nil {
			return err
		}
	}
}

// errEnded means that the program closed its output.
var errEnded = errors.New("the program ended")

func readLine(r *bufio.Reader) (string, error) {
	var b []byte
	for {
		part, err := r.ReadSlice('\n')
		b = append(b, part...)
		switch {
		case len(b) > maxLine:
			return "", fmt.Errorf("%w: a line longer than %d bytes", errProtocol, maxLine)
		case err == nil:
			return strings.TrimRight(string(b), "\r\n"), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrClosed):
			return "", errEnded
		default:
			return "", err
		}
	}
}

// take gives a line to who waits for it.
func (c *child) take(line string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = time.Now()
	if change, ok := parseChange(line); ok && c.can.changed {
		for ch := range c.watch {
			select {
			case ch <- change:
			default: // one that cannot keep up is told that everything changed
				c.overrun(ch)
			}
		}
		return nil
	}
	r, err := parseReply(line)
	if err != nil {
		return err
	}
	p, ok := c.pending[r.id]
	if !ok {
		if n, err := strconv.ParseUint(r.id, 16, 64); err != nil || n == 0 || n > c.asked {
			return fmt.Errorf("%w: an answer to a question that was not asked, %.40q", errProtocol, r.id)
		}
		return nil // too late: nobody waits any more
	}
	if !r.answers(p.op) {
		return fmt.Errorf("%w: %s-result for a %s", errProtocol, r.kind, p.op)
	}
	delete(c.pending, r.id)
	p.ch <- r
	return nil
}

// overrun ends a watch that lost a change; c.mu is held.
func (c *child) overrun(ch chan table.Change) {
	delete(c.watch, ch)
	close(ch)
}

// write sends text whole, or ends the program.
func (c *child) write(text string) error {
	if err := c.in.SetWriteDeadline(time.Now().Add(stallTime)); err != nil {
		return errEnded
	}
	if _, err := io.WriteString(c.in, text); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errStalled
		}
		return err
	}
	return nil
}

// errStalled means that a program takes no questions, or answers none.
var errStalled = errors.New("the program does not answer")

// ask puts one question and waits for its answer.
func (c *child) ask(ctx context.Context, o op, s table.Service, key string) (reply, error) {
	if !c.can.services[s] {
		return reply{}, fmt.Errorf("%w: the program did not register %s", table.ErrUnsupported, s)
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.dead:
		return reply{}, c.err
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
	began := time.Now()
	id, ch, err := c.send(o, s, key, began)
	if err != nil {
		return reply{}, err
	}
	defer c.forget(id)
	stall := time.NewTimer(stallTime)
	defer stall.Stop()
	for {
		select {
		case r := <-ch:
			return r, r.err
		case <-c.dead:
			return reply{}, c.err
		case <-ctx.Done():
			return reply{}, ctx.Err()
		case <-stall.C:
			if silent := c.silence(began); silent >= stallTime {
				c.end(errStalled)
			} else {
				stall.Reset(stallTime - silent)
			}
		}
	}
}

// silence returns for how long nothing was heard, since a question at the longest.
func (c *child) silence(since time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard.After(since) {
		since = c.heard
	}
	return time.Since(since)
}

// send writes a question. Answers are taken meanwhile: a program that waits for
// us to read must not find us waiting for it to do so.
func (c *child) send(o op, s table.Service, key string, at time.Time) (string, chan reply, error) {
	ch := make(chan reply, 1)
	c.mu.Lock()
	c.asked++
	id := fmt.Sprintf("%08x", c.asked)
	c.pending[id] = pending{o, ch}
	c.mu.Unlock()
	c.wmu.Lock()
	err := c.write(o.request(c.name, at, s, id, key))
	c.wmu.Unlock()
	if err != nil {
		c.end(err)
		return "", nil, c.err
	}
	return id, ch, nil
}

func (c *child) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// kill ends a program and what it started.
func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // gone already is as good
