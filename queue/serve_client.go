package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"

	"tabard/internal/rpc"
)

// Limits of one connection that enqueues.
const (
	// MaxWriters is how many messages may be written at once.
	MaxWriters = 1024
	// MaxBody is the largest body, in bytes, that is taken at all. smtpd's own
	// limit is lower; this one holds when smtpd was taken over.
	MaxBody = 1 << 30
	// maxPending is how many recipients all that is written at once may have together:
	// each takes up to 3 KB of memory.
	maxPending = 10 * MaxRecipients
)

// ServeClient serves c to the peer on conn until the connection or ctx ends.
// What the peer was writing then is forgotten.
func ServeClient(ctx context.Context, conn net.Conn, c Client, opts ...rpc.Option) error {
	srv := rpc.NewServer(opts...)
	release, err := RegisterClient(srv, c)
	if err != nil {
		conn.Close()
		return err
	}
	defer release()
	return srv.Serve(ctx, conn)
}

// RegisterClient serves c as "Queue" on srv, which must serve one connection
// only; release, called when that has ended, aborts what it was writing.
func RegisterClient(srv *rpc.Server, c Client) (release func(), err error) {
	s := &clientService{client: c, writers: make(map[int64]*servedWriter)}
	return s.release, srv.Register("Queue", s)
}

// clientService is one connection's access to a Client.
type clientService struct {
	client Client

	mu      sync.Mutex
	writers map[int64]*servedWriter
	pending int // recipients of all writers
	ended   bool
}

// servedWriter is a message that a peer writes call by call.
type servedWriter struct {
	mu         sync.Mutex
	w          Writer
	size       int64
	recipients []Envelope
	ended      bool
}

type enqueueRequest struct {
	_          struct{} `cbor:",toarray"`
	Message    wireMessage
	Recipients []wireRecipient
	Body       []byte
	Spent      []uint64
}

type writeRequest struct {
	_      struct{} `cbor:",toarray"`
	Writer int64
	Offset int64 // must be where the last one ended
	Data   []byte
}

// Bulk implements rpc.Bulk.
func (writeRequest) Bulk() {}

type recipientsRequest struct {
	_          struct{} `cbor:",toarray"`
	Writer     int64
	Recipients []wireRecipient
}

type commitRequest struct {
	_       struct{} `cbor:",toarray"`
	Writer  int64
	Message wireMessage
	Spent   []uint64
}

// Enqueue serves Client.Enqueue.
func (s *clientService) Enqueue(c *rpc.Call[enqueueRequest], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(ctx context.Context, req enqueueRequest) (rpc.None, error) {
		sub := submission(&req.Message, nil, req.Recipients)
		sub.Spent.unpack(req.Spent, StepAccept, inboundEnd)
		return rpc.None{}, s.client.Enqueue(ctx, sub, req.Body)
	})
}

// submission builds what a peer submits. The queue itself checks it.
func submission(m *wireMessage, have []Envelope, more []wireRecipient) Submission {
	sub := Submission{Message: m.message(), Recipients: have}
	for i := range more {
		sub.Recipients = append(sub.Recipients, more[i].envelope())
	}
	return sub
}

// Create serves Client.Create.
func (s *clientService) Create(c *rpc.Call[rpc.None], r *rpc.Reply[int64]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) (int64, error) {
		w, err := s.client.Create(ctx)
		if err != nil {
			return 0, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ended || len(s.writers) >= MaxWriters {
			w.Abort()
			return 0, fmt.Errorf("%w: %d messages are being written", rpc.ErrBusy, len(s.writers))
		}
		// Random, so that an id of a connection before is not one of this.
		id := rand.Int64()
		for s.writers[id] != nil {
			id = rand.Int64()
		}
		s.writers[id] = &servedWriter{w: w}
		return id, nil
	})
}

// use runs f with a writer. An error ends the writer.
func (s *clientService) use(id int64, f func(*servedWriter) error) error {
	s.mu.Lock()
	w := s.writers[id]
	s.mu.Unlock()
	if w == nil {
		return fmt.Errorf("%w: no such message is being written", rpc.ErrInvalid)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return fmt.Errorf("%w: the message has ended", rpc.ErrInvalid)
	}
	err := f(w)
	if err != nil {
		s.drop(id, w)
	}
	return err
}

// drop aborts a writer. It needs the writer's mu.
func (s *clientService) drop(id int64, w *servedWriter) {
	s.mu.Lock()
	if s.writers[id] == w {
		s.pending -= len(w.recipients)
	}
	delete(s.writers, id)
	s.mu.Unlock()
	if !w.ended {
		w.ended = true
		w.w.Abort()
	}
}

// Write serves Writer.Write.
func (s *clientService) Write(c *rpc.Call[writeRequest], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, req writeRequest) (rpc.None, error) {
		return rpc.None{}, s.use(req.Writer, func(w *servedWriter) error {
			if req.Offset != w.size {
				return fmt.Errorf("%w: body from %d, have %d", rpc.ErrInvalid, req.Offset, w.size)
			}
			if w.size+int64(len(req.Data)) > MaxBody {
				return fmt.Errorf("%w: body of more than %d bytes", rpc.ErrTooLarge, MaxBody)
			}
			n, err := w.w.Write(req.Data)
			w.size += int64(n)
			return err
		})
	})
}

// Recipients adds recipients of a message with more than one call carries.
func (s *clientService) Recipients(c *rpc.Call[recipientsRequest], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, req recipientsRequest) (rpc.None, error) {
		return rpc.None{}, s.use(req.Writer, func(w *servedWriter) error {
			if len(w.recipients)+len(req.Recipients) > MaxRecipients {
				return fmt.Errorf("%w: more than %d recipients", rpc.ErrInvalid, MaxRecipients)
			}
			more := make([]Envelope, len(req.Recipients))
			for i := range more {
				more[i] = req.Recipients[i].envelope()
				if err := more[i].check(); err != nil {
					return err
				}
			}
			w.recipients = append(w.recipients, more...)
			return s.more(len(more))
		})
	})
}

// more counts recipients that a writer has taken.
func (s *clientService) more(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending += n; s.pending > maxPending {
		return fmt.Errorf("%w: messages with %d recipients are being written", rpc.ErrBusy, s.pending)
	}
	return nil
}

// Commit serves Writer.Commit.
func (s *clientService) Commit(c *rpc.Call[commitRequest], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(ctx context.Context, req commitRequest) (rpc.None, error) {
		return rpc.None{}, s.use(req.Writer, func(w *servedWriter) error {
			w.ended = true // Commit ends it, whatever comes
			sub := submission(&req.Message, w.recipients, nil)
			sub.Spent.unpack(req.Spent, StepAccept, inboundEnd)
			err := w.w.Commit(ctx, sub)
			s.drop(req.Writer, w)
			return err
		})
	})
}

// Abort serves Writer.Abort.
func (s *clientService) Abort(c *rpc.Call[int64], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, id int64) (rpc.None, error) {
		return rpc.None{}, s.use(id, func(w *servedWriter) error {
			s.drop(id, w)
			return nil
		})
	})
}

// release aborts what is left.
func (s *clientService) release() {
	s.mu.Lock()
	s.ended = true
	left := make(map[int64]*servedWriter, len(s.writers))
	for id, w := range s.writers {
		left[id] = w
	}
	s.mu.Unlock()
	for id, w := range left {
		w.mu.Lock()
		s.drop(id, w)
		w.mu.Unlock()
	}
}
