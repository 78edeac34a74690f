// Package metrics serves the numbers of a running server in the format of
// Prometheus, over HTTP, to programs on the same machine.
//
// It is a process of its own. What parses HTTP and is open to every user of the
// machine belongs nowhere near keys (lookup), mail (queue) or the sessions of
// clients (smtpd). And it outlives the others: after a reload it asks the new smtpd
// beside the old one, adds up what both say, and keeps what one that has ended said
// last, so that no counter falls. It has a listening socket and one connection to
// each process, on which it can ask for numbers and nothing else.
//
// What a process says may be a lie, but cannot be more than numbers under names
// that are fixed here (package count). Names of tables and certificates come from
// lookup, how the processes do from the supervisor.
package metrics

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"tabard/internal/count"
	"tabard/internal/privsep"
	"tabard/mta"
	"tabard/queue"
	"tabard/smtpd"
)

// Path is where the metrics are.
const Path = "/metrics"

// Bounds of what HTTP clients can take.
const (
	maxConns      = 16
	maxScrapes    = 4 // at once
	maxHeader     = 8 << 10
	headerTimeout = 5 * time.Second
	writeTimeout  = 15 * time.Second
	idleTimeout   = 30 * time.Second
	stopTimeout   = time.Second
)

// answerTimeout bounds the wait for the answer of one process.
const answerTimeout = 3 * time.Second

// The processes that are asked.
const (
	procSMTPD  = "smtpd"
	procMTA    = "mta"
	procQueue  = "queue"
	procLookup = "lookup"
)

// Options are those of a Server.
type Options struct {
	// Status asks the supervisor how the processes do. Required.
	Status func(ctx context.Context) (privsep.Status, error)
	Log    *slog.Logger // nil: discarded
	// Timeout bounds the wait for each process; default 3 s.
	Timeout time.Duration
}

// Server answers for the whole of a running Tabard.
type Server struct {
	opts    Options
	sources map[string]*source
}

// New returns a server that knows no process yet.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 {
		o.Timeout = answerTimeout
	}
	s := &Server{opts: o, sources: map[string]*source{}}
	for name, descs := range map[string][]count.Desc{
		procSMTPD: smtpd.Counted(), procMTA: mta.Counted(), procQueue: queue.Counted(), procLookup: nil,
	} {
		s.sources[name] = &source{name: name, descs: descs}
	}
	return s
}

// Attach makes conn the connection to the process called name, which serves
// count.Register on it, and lookup also lookup.RegisterMeter. The one before is
// asked too until it ends. A process of another name is not asked.
func (s *Server) Attach(name string, conn net.Conn) {
	src := s.sources[name]
	if src == nil {
		_ = conn.Close()
		s.opts.Log.Error("a process that has no metrics", "process", name)
		return
	}
	src.attach(conn)
}

// Serve answers on l, which it closes, until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(patience) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(netutil.LimitListener(l, maxConns))
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Handler answers requests. It asks everybody anew each time.
func (s *Server) Handler() http.Handler {
	slots := make(chan struct{}, maxScrapes)
	opts := promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelError), ErrorHandling: promhttp.ContinueOnError, DisableCompression: true,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
			return
		}
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(collector{s.ask(r.Context()), s.opts.Log})
		promhttp.HandlerFor(reg, opts).ServeHTTP(w, r)
	})
	return mux
}
