package queue

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"tabard/internal/rpc"
)

// takeWait is how long a Take waits on the queue's side before it answers with
// nothing.
const takeWait = 30 * time.Second

// ServeRelay serves a relay worker to the peer on conn until the connection or
// ctx ends. What the peer has not reported then is due again.
func (q *Queue) ServeRelay(ctx context.Context, conn net.Conn, opts ...rpc.Option) error {
	w, release := q.RelayWorker()
	defer release()
	return serveWorker(ctx, conn, w, opts)
}

// ServeLocal serves a worker that delivers as uid; see ServeRelay.
func (q *Queue) ServeLocal(ctx context.Context, conn net.Conn, uid int, opts ...rpc.Option) error {
	w, release := q.LocalWorker(uid)
	defer release()
	return serveWorker(ctx, conn, w, opts)
}

func serveWorker(ctx context.Context, conn net.Conn, w Worker, opts []rpc.Option) error {
	srv := rpc.NewServer(opts...)
	if err := RegisterWorker(srv, w); err != nil {
		conn.Close()
		return err
	}
	return srv.Serve(ctx, conn)
}

// RegisterWorker serves w as "Worker" on srv, which must serve one connection
// only.
func RegisterWorker(srv *rpc.Server, w Worker) error {
	return srv.Register("Worker", &workerService{worker: w, turn: make(chan struct{}, 1), seq: rand.Uint64() | 1})
}

// workerService is one connection's access to a Worker.
type workerService struct {
	worker Worker
	turn   chan struct{} // held by the one Take that runs

	mu    sync.Mutex
	seq   uint64 // of the last answer with jobs
	given []Result
}

// takeRequest acknowledges the last answer with jobs that the peer has seen:
// one that got lost, because the peer gave up waiting, is due again.
type takeRequest struct {
	_   struct{} `cbor:",toarray"`
	Max int
	Ack uint64
}

type takeReply struct {
	_    struct{} `cbor:",toarray"`
	Seq  uint64
	Jobs []wireJob

	Paused []Hold
}

type bodyRequest struct {
	_      struct{} `cbor:",toarray"`
	ID     int64
	Offset int64
	Max    int
}

// Take serves Worker.Take. It answers without jobs when there are none for a
// while.
func (s *workerService) Take(c *rpc.Call[takeRequest], r *rpc.Reply[takeReply]) error {
	return rpc.Do(c, r, func(ctx context.Context, req takeRequest) (takeReply, error) {
		select {
		case s.turn <- struct{}{}:
			defer func() { <-s.turn }()
		case <-ctx.Done():
			return takeReply{}, ctx.Err()
		}
		if ctx.Err() != nil { // TakeBack may have been here already
			return takeReply{}, ctx.Err()
		}
		s.takeBack(ctx, req.Ack)
		wait, cancel := context.WithTimeout(ctx, takeWait)
		defer cancel()
		jobs, err := s.worker.Take(wait, req.Max)
		if err != nil && ctx.Err() == nil && wait.Err() != nil {
			return takeReply{Seq: req.Ack}, nil
		}
		if err != nil {
			return takeReply{}, err
		}
		reply := takeReply{Seq: s.remember(jobs), Jobs: toWireJobs(jobs)}
		if len(jobs) > 0 {
			reply.Paused = jobs[len(jobs)-1].Paused
		}
		return reply, nil
	})
}

// TakeBack returns the jobs of the last answer, unless its number is the one
// that the peer has seen. It waits until a Take that was given up has ended.
func (s *workerService) TakeBack(c *rpc.Call[uint64], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(ctx context.Context, ack uint64) (rpc.None, error) {
		select {
		case s.turn <- struct{}{}:
			defer func() { <-s.turn }()
		case <-ctx.Done():
			return rpc.None{}, ctx.Err()
		}
		s.takeBack(ctx, ack)
		return rpc.None{}, nil
	})
}

// remember notes an answer until the peer has seen it.
func (s *workerService) remember(jobs []Job) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	s.given = nil
	for _, j := range jobs {
		for _, e := range j.Envelopes {
			s.given = append(s.given, Result{ID: e.ID, Outcome: Returned})
		}
	}
	return s.seq
}

// takeBack returns the jobs of an answer that the peer has not seen.
func (s *workerService) takeBack(ctx context.Context, ack uint64) {
	s.mu.Lock()
	lost := s.given
	if s.given = nil; ack == s.seq {
		lost = nil
	}
	s.mu.Unlock()
	for _, r := range lost {
		// One that was reported all the same is not leased any more.
		_ = s.worker.Done(ctx, []Result{r})
	}
}

// Body serves Worker.Body.
func (s *workerService) Body(c *rpc.Call[bodyRequest], r *rpc.Reply[[]byte]) error {
	return rpc.Do(c, r, func(ctx context.Context, req bodyRequest) ([]byte, error) {
		return s.worker.Body(ctx, MessageID(req.ID), req.Offset, req.Max)
	})
}

// Done serves Worker.Done.
func (s *workerService) Done(c *rpc.Call[[]wireResult], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(ctx context.Context, wire []wireResult) (rpc.None, error) {
		results := make([]Result, len(wire))
		for i := range wire {
			results[i] = wire[i].result()
		}
		return rpc.None{}, s.worker.Done(ctx, results)
	})
}
