package queue

import (
	"context"
	"fmt"
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
	s := &clientService{client: c}
	s.writers = handles[*servedWriter]{what: "message that is being written", most: MaxWriters, idle: maxIdle, end: func(w *servedWriter) {
		w.w.Abort()
		s.fewer(len(w.recipients))
	}}
	return s.writers.close, srv.Register("Queue", s)
}

// clientService is one connection's access to a Client.
type clientService struct {
	client  Client
	writers handles[*servedWriter]

	mu      sync.Mutex
	pending int // recipients of all writers
}

// servedWriter is a message that a peer writes call by call.
type servedWriter struct {
	w          Writer
	size       int64
	recipients []Envelope
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
		return s.writers.add(&servedWriter{w: w})
	})
}

// Write serves Writer.Write.
func (s *clientService) Write(c *rpc.Call[writeRequest], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, req writeRequest) (rpc.None, error) {
		return rpc.None{}, s.writers.use(req.Writer, func(w *servedWriter) error {
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
		return rpc.None{}, s.writers.use(req.Writer, func(w *servedWriter) error {
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

// fewer takes back what more counted.
func (s *clientService) fewer(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending -= n
}

// Commit serves Writer.Commit.
func (s *clientService) Commit(c *rpc.Call[commitRequest], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(ctx context.Context, req commitRequest) (rpc.None, error) {
		return rpc.None{}, s.writers.last(req.Writer, func(w *servedWriter) error {
			defer s.fewer(len(w.recipients))
			sub := submission(&req.Message, w.recipients, nil)
			sub.Spent.unpack(req.Spent, StepAccept, inboundEnd)
			return w.w.Commit(ctx, sub)
		})
	})
}

// Abort serves Writer.Abort.
func (s *clientService) Abort(c *rpc.Call[int64], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, id int64) (rpc.None, error) {
		return rpc.None{}, s.writers.remove(id)
	})
}
