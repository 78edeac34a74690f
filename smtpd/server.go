// Package smtpd accepts mail by SMTP: sessions on emersion/go-smtp behind a
// connection that owns the line discipline, so that only CRLF.CRLF ends a
// message, TLS can be started without forking the library, and replies leave in
// groups.
//
// It holds sockets and TLS sessions and nothing else: names, passwords, rules
// and private keys are asked of lookup, messages go to queue.
package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/internal/eventlog"
	"tabard/lookup"
	"tabard/queue"
)

// Server is the inbound SMTP server: any number of listeners, one set of limits.
type Server struct {
	cfg    Config
	lookup lookup.Inbound
	queue  queue.Client
	log    *slog.Logger
	ids    idSource
	certs  certCache
	tls    map[int]*tls.Config // by listener
	bufs   sync.Pool           // of *bufio.Reader: 16 KiB for each connection
	pieces pieces
	count  *counts
	events eventlog.Recorder // nil: there is no event log

	// life ends when Shutdown loses patience; what sessions ask runs under it.
	life context.Context
	end  context.CancelFunc

	door door
}

// New returns a server that asks l and stores in q. It opens nothing: give its
// sockets to Serve.
func New(cfg Config, l lookup.Inbound, q queue.Client, log *slog.Logger) (*Server, error) {
	if l == nil || q == nil || log == nil {
		return nil, errors.New("smtpd: lookup, queue and log are needed")
	}
	if cfg.Hostname == "" {
		return nil, errors.New("smtpd: no host name")
	}
	seen := map[int]bool{}
	for _, ln := range cfg.Listeners {
		if seen[ln.Index] {
			return nil, fmt.Errorf("smtpd: two listeners with index %d", ln.Index)
		}
		seen[ln.Index] = true
		if ln.TLS != 0 && !ln.HasPKI {
			return nil, fmt.Errorf("smtpd: listener %s: tls without pki", ln.Name)
		}
	}
	s := &Server{cfg: cfg.withDefaults(), lookup: l, queue: q, log: log, tls: map[int]*tls.Config{}, count: newCounts()}
	for i := range s.cfg.Listeners {
		s.tls[s.cfg.Listeners[i].Index] = s.tlsConfig(&s.cfg.Listeners[i])
	}
	s.life, s.end = context.WithCancel(context.Background())
	// A tenth of the time that a handshake may take is plenty for who means it.
	s.door.init(s.cfg.MaxConnections, s.cfg.MaxPerAddress, s.cfg.Timeouts.Handshake/10)
	return s, nil
}

// Serve accepts connections on l for the listener with the given index until l
// is closed, ctx ends or Shutdown is called, and then returns nil. It closes l.
// Sessions that are open then go on; Shutdown ends them. Several sockets may
// serve one listener.
func (s *Server) Serve(ctx context.Context, index int, l net.Listener) error {
	defer func() { _ = l.Close() }()
	ln, err := s.listener(index)
	if err != nil {
		return err
	}
	srv := s.newSMTP(ln)
	if !s.door.open(srv, l) {
		return nil
	}
	defer s.door.shut(l)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	err = srv.Serve(&gate{Listener: l, srv: s, ln: ln})
	if err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("listener %s: %w", ln.Name, err)
}

func (s *Server) listener(index int) (*Listener, error) {
	for i := range s.cfg.Listeners {
		if s.cfg.Listeners[i].Index == index {
			return &s.cfg.Listeners[i], nil
		}
	}
	return nil, fmt.Errorf("smtpd: no listener with index %d", index)
}

// newSMTP configures the library. What it would do itself but our conn does
// (TLS, deadlines, line lengths, error limits) is switched off.
func (s *Server) newSMTP(ln *Listener) *smtp.Server {
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		own, ok := c.Conn().(*conn)
		if !ok {
			return nil, errors.New("not a connection of ours")
		}
		return own.sess, nil
	}))
	srv.Domain = s.cfg.Hostname
	srv.MaxRecipients = s.cfg.MaxRcpt
	srv.MaxMessageBytes = s.cfg.MaxMessageSize
	srv.MaxLineLength = 0
	srv.AllowInsecureAuth = true // our AuthMechanisms offers none without TLS
	srv.EnableSMTPUTF8 = true
	srv.EnableREQUIRETLS = true // offered by our capability, taken under TLS only
	srv.EnableDSN = !ln.NoDSN
	srv.ErrorLog = libraryLog{s.log}
	return srv
}

// Shutdown stops accepting at once, closes idle sessions with 421 and waits for
// transactions in progress. When ctx ends first, it cuts off what is left and
// returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	servers := s.door.drain()
	defer s.end()
	// wait outlives ctx a little: handlers whose socket was cut need a moment.
	wait, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	stop := context.AfterFunc(ctx, func() {
		s.end()
		s.door.cut()
		time.AfterFunc(time.Second, giveUp)
	})
	defer stop()
	for _, srv := range servers {
		// The library's own Shutdown waits until every handler has returned. Its
		// error is about listeners, which are closed already.
		_ = srv.Shutdown(wait)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("smtpd: sessions cut off: %w", ctx.Err())
	}
	return nil
}

// Retire stops accepting, calls rested when that is so, and lets the sessions
// that are open go on until they end by themselves, or ctx does: Shutdown is for
// what is left then. Nothing is turned away: connections that the kernel has
// ready at the last moment are served (on Linux; elsewhere they are reset, unless
// another process accepts on the same socket). What completes its TCP handshake
// between the last look and the close that follows it is reset everywhere.
func (s *Server) Retire(ctx context.Context, rested func()) {
	s.door.close()
	select {
	case <-s.door.shutAll:
		rested()
	case <-ctx.Done():
		return
	}
	select {
	case <-s.door.empty:
	case <-ctx.Done():
	}
}

// libraryLog takes what go-smtp itself reports: accept errors and panics.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, v ...any) {
	l.log.Error("smtp library", "error", fmt.Sprintf(format, v...))
}

func (l libraryLog) Println(v ...any) { l.log.Error("smtp library", "error", fmt.Sprint(v...)) }
