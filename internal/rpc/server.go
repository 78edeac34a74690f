package rpc

import (
	"context"
	"fmt"
	"net"
	netrpc "net/rpc"
	"reflect"
	"sync"

	"tabard/internal/coalesce"
)

// Server answers calls on any number of connections.
type Server struct {
	rpc  *netrpc.Server
	opts options
}

// NewServer returns a server that knows no methods yet.
func NewServer(opts ...Option) *Server {
	return &Server{rpc: netrpc.NewServer(), opts: newOptions(opts)}
}

// Register serves the methods of rcvr that have the form
// func(*Call[Req], *Reply[Resp]) error as "name.Method". An exported method of
// another form, or none at all, is an error.
func (s *Server) Register(name string, rcvr any) error {
	t := reflect.TypeOf(rcvr)
	if t.NumMethod() == 0 {
		return fmt.Errorf("rpc: %s: %s has no exported methods", name, t)
	}
	for m := range t.NumMethod() {
		if !servable(t.Method(m).Type) {
			return fmt.Errorf("rpc: %s: method %s of %s is not func(*Call, *Reply) error", name, t.Method(m).Name, t)
		}
	}
	if err := s.rpc.RegisterName(name, rcvr); err != nil {
		return fmt.Errorf("rpc: %s: %w", name, err)
	}
	return nil
}

func servable(m reflect.Type) bool {
	return m.NumIn() == 3 && m.NumOut() == 1 &&
		m.In(1).Implements(reflect.TypeFor[binder]()) &&
		m.In(2).Implements(reflect.TypeFor[encoded]()) &&
		m.Out(0) == reflect.TypeFor[error]()
}

// Serve answers the calls on conn until the peer closes it (nil), ctx ends or
// the peer breaks the protocol (an error), and closes it. It returns when every
// handler has returned; their contexts end with the connection.
func (s *Server) Serve(ctx context.Context, conn net.Conn) error {
	coding, err := NewCoding()
	if err != nil {
		conn.Close()
		return err
	}
	codec := newServerCodec(ctx, conn, coding, s.opts)
	stop := context.AfterFunc(ctx, func() { codec.fail(context.Cause(ctx)) })
	defer stop()
	s.rpc.ServeCodec(codec)
	return codec.reason()
}

// serverCodec is net/rpc's view of one connection.
type serverCodec struct {
	options
	ctx    context.Context
	cancel context.CancelFunc
	conn   net.Conn
	coding *Coding
	in     *frameReader
	out    *coalesce.Writer
	gate   *gate
	next   *inflight // whose header was read, and whose body comes next

	mu     sync.Mutex
	calls  map[uint64]*inflight
	err    error // the first fault
	closed bool
}

func newServerCodec(ctx context.Context, conn net.Conn, coding *Coding, o options) *serverCodec {
	c := &serverCodec{
		options: o, conn: conn, coding: coding,
		in:    newFrameReader(conn, o.maxFrame),
		out:   coalesce.NewWriter(conn, o.maxFrame, keepBuffer),
		gate:  newGate(o.maxInFlight, budgetFrames*o.maxFrame),
		calls: make(map[uint64]*inflight),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}
