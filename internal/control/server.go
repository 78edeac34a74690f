package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"tabard/internal/privsep"
	"tabard/internal/privsep/fdpass"
)

// Supervisor is what the control socket gives access to.
type Supervisor interface {
	Status() privsep.Status
	// Connect connects the caller, who gets one end, with a running process.
	Connect(process, edge string) (*os.File, error)
	// Reload reads the configuration again and puts it in force, whole or not.
	Reload(ctx context.Context) error
}

// Server serves a control socket.
type Server struct {
	l     *net.UnixListener
	path  string
	inode os.FileInfo // of the socket as we made it
	log   *slog.Logger
	// timeout bounds a connection.
	timeout time.Duration
}

// Listen opens the control socket at path for the own user only. A stale one is
// replaced; one that a live server has is an error that wraps privsep.ErrInUse.
func Listen(path string, log *slog.Logger) (*Server, error) {
	l, err := privsep.ListenUnix(path, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Server{l: l, path: path, inode: info, log: log, timeout: exchangeTimeout}, nil
}

// Serve answers requests until ctx ends, then closes and removes the socket.
func (s *Server) Serve(ctx context.Context, sup Supervisor) error {
	stop := context.AfterFunc(ctx, func() { s.l.Close() })
	defer stop()
	defer s.remove()
	defer s.l.Close()
	var conns sync.WaitGroup
	defer conns.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		slots <- struct{}{} // given back within exchangeTimeout
		conn, err := s.l.AcceptUnix()
		if err != nil {
			<-slots
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			s.log.Error("control socket", "error", err)
			if !pause(ctx) {
				return nil
			}
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			s.serve(ctx, conn, sup)
		})
	}
}

// pause waits a little when no connection can be accepted (out of descriptors).
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// serve answers the one request of a connection.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, sup Supervisor) {
	c, err := fdpass.New(conn, maxReply, maxRequest)
	if err != nil {
		s.log.Error("control socket", "error", err)
		return
	}
	defer c.Close()
	if err := conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return // closed already
	}
	var req request
	if err := c.Recv(&req); err != nil {
		if !errors.Is(err, io.EOF) { // Dial only looks whether we are here
			s.log.Debug("control socket: bad request", "error", err)
		}
		return
	}
	if req.Op == opReload {
		if err := conn.SetDeadline(time.Now().Add(reloadTimeout)); err != nil {
			return
		}
	}
	rep, f := carryOut(ctx, req, sup)
	if f != nil {
		defer f.Close()
	}
	if err := c.Send(rep, f); err != nil {
		s.log.Debug("control socket: answer not delivered", "error", err)
	}
}

func carryOut(ctx context.Context, req request, sup Supervisor) (reply, *os.File) {
	switch req.Op {
	case opStatus:
		return reply{Status: sup.Status()}, nil
	case opConnect:
		f, err := sup.Connect(req.Name, EdgeName)
		if err != nil {
			return reply{Error: err.Error()}, nil
		}
		return reply{}, f
	case opReload:
		if err := sup.Reload(ctx); err != nil {
			return reply{Error: truncate(err.Error())}, nil
		}
		return reply{}, nil
	}
	return reply{Error: "unknown request"}, nil
}

// truncate keeps an error within an answer.
func truncate(text string) string { return text[:min(len(text), maxReply/4)] }

// remove removes the socket unless another server has replaced it meanwhile.
func (s *Server) remove() {
	info, err := os.Lstat(s.path)
	if err == nil && os.SameFile(info, s.inode) {
		err = os.Remove(s.path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("control socket not removed", "error", err)
	}
}
