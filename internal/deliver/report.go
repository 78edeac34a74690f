package deliver

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

// How often and how long a result is offered to the queue before it is lost
// (and the message delivered again later).
const (
	reportTries   = 5
	reportTimeout = 30 * time.Second
	reportBackoff = 50 * time.Millisecond
)

// reporter hands results to the queue in the background. What has gathered
// while one report is on its way goes with the next.
type reporter struct {
	worker queue.Worker
	log    *slog.Logger
	in     chan []queue.Result
	done   chan struct{}
	failed func(error) // called once, when a report could not be made
	err    error       // valid after done is closed
}

func newReporter(w queue.Worker, log *slog.Logger, room int, failed func(error)) *reporter {
	r := &reporter{
		worker: w,
		log:    log,
		in:     make(chan []queue.Result, room),
		done:   make(chan struct{}),
		failed: failed,
	}
	go r.loop()
	return r
}

// results queues results; it waits while too many are waiting already.
func (r *reporter) results(res ...queue.Result) {
	if len(res) > 0 {
		r.in <- res
	}
}

// close waits until everything is reported.
func (r *reporter) close() error {
	close(r.in)
	<-r.done
	return r.err
}

func (r *reporter) loop() {
	defer close(r.done)
	for batch := range r.in {
		for range len(r.in) {
			batch = append(batch, <-r.in...)
		}
		if r.err == nil {
			if r.err = r.report(batch); r.err != nil {
				r.failed(r.err)
			}
		}
		if r.err != nil {
			r.lost(batch)
		}
	}
}

// report tries again for a while: a result that is lost makes a duplicate. An
// error of the queue itself is no reason: it has taken the results over and goes
// on storing them (or never leased them), and the next ones are welcome.
func (r *reporter) report(batch []queue.Result) (err error) {
	for try := range reportTries {
		if try > 0 {
			time.Sleep(reportBackoff << (try - 1))
		}
		ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
		err = r.worker.Done(ctx, batch)
		cancel()
		if err == nil {
			return nil
		}
		var answer *rpc.RemoteError
		if errors.As(err, &answer) && !errors.Is(err, context.DeadlineExceeded) {
			r.log.Error("mda results not stored yet", "results", len(batch), "error", err)
			return nil
		}
	}
	return err
}

func (r *reporter) lost(batch []queue.Result) {
	for _, res := range batch {
		r.log.Error("mda result not reported, the message may be delivered again",
			"evpid", res.ID.String(), "result", res.Outcome.String(), "error", r.err)
	}
}
