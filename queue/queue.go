package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tabard/internal/bodycode"
	"tabard/lookup"
)

// Queue is the queue process: it takes messages, hands them to workers when
// they are due, and tells senders what became of them.
type Queue struct {
	store   Store
	local   lookup.Local
	opt     Options               // what never changes
	rules   atomic.Pointer[Rules] // what SetRules changes
	log     *slog.Logger
	commits *committer
	actions *actions
	active  *active
	ids     IDSource
	count   counters
	numbers *numbers
	depth   depths
	spans   profile
	traces  *traces
	began   time.Time

	scan  scanState // under active.mu
	holds []*Hold   // under active.mu
	// awaiting is what waits for a hold of the queue's own that is not durable yet.
	awaiting map[holdID][]*item // under active.mu
	holdMu   sync.Mutex
	imports  importsNow
	resolve  backlog[*item]
	reports  reports
	unstored unstored

	ctx     context.Context // ends with Run or Close
	stop    context.CancelFunc
	running bool // under active.mu

	lastHold int64 // id; under active.mu

	coder    atomic.Pointer[bodycode.Coder]
	epochs   epochs
	recodeMu sync.Mutex

	taskMu sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

var (
	_ Client = (*Queue)(nil)
	_ Admin  = (*Queue)(nil)
)

// New returns a queue on a store, which it owns from now on. Messages can be
// enqueued at once; deliveries begin with Run.
func New(ctx context.Context, store Store, local lookup.Local, o Options) (*Queue, error) {
	o = o.filled()
	q := &Queue{
		store: store, local: local, opt: o, log: o.Logger,
		actions:  &actions{local: local},
		active:   newActive(o),
		scan:     newScan(),
		awaiting: make(map[holdID][]*item),
		numbers:  newNumbers(), traces: newTraces(), began: time.Now(),
	}
	q.commits = newCommitter(store, q.count.stored)
	if err := q.loadHolds(ctx); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	q.rules.Store(o.rules())
	q.reports.waiting = make(map[MessageID]*gathering)
	q.ctx, q.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := q.countStored(); err != nil {
		q.stop()
		return nil, fmt.Errorf("queue: %w", err)
	}
	if o.Coder != nil {
		q.SetCoder(o.Coder)
	} else {
		q.settleBodies()
	}
	return q, nil
}

// Run schedules until ctx ends. Results of jobs that workers still have are
// taken until Close. It runs once. ErrBroken: the store has failed, and nothing
// goes on before it is opened anew.
func (q *Queue) Run(ctx context.Context) error {
	defer q.stop()
	defer context.AfterFunc(ctx, q.stop)()
	q.active.mu.Lock()
	q.running = true
	for _, p := range q.active.pools {
		q.summon(p)
	}
	q.active.mu.Unlock()
	q.goWhile(q.watchStore)
	q.kick()
	if !q.freeAbandoned(q.ctx) {
		q.goWhile(q.freeLater)
	}
	q.runScan(q.ctx)
	if err := q.store.Writable(); errors.Is(err, ErrBroken) {
		q.log.Error("queue storage failed: nothing more is taken or delivered until it is opened anew", "error", err)
		return err
	}
	return ctx.Err()
}

// watchStore ends the queue when its store has failed.
func (q *Queue) watchStore() {
	select {
	case <-q.store.Broken():
		q.stop()
	case <-q.ctx.Done():
	}
}

// kick sees to it that what was routed goes on.
func (q *Queue) kick() {
	q.resolveSome()
	q.reportSome()
}

// Close ends scheduling, waits for transactions that have begun, and closes the
// store. Calls afterwards return ErrClosed.
func (q *Queue) Close() error {
	q.stop()
	q.taskMu.Lock()
	q.closed = true
	q.taskMu.Unlock()
	q.tasks.Wait()
	q.commits.close()
	return q.store.Close()
}

// goWhile runs f beside; Close waits for it. After Close nothing is begun: what
// is durable is found again at the next start.
func (q *Queue) goWhile(f func()) {
	q.taskMu.Lock()
	defer q.taskMu.Unlock()
	if !q.closed {
		q.tasks.Go(f)
	}
}

// backlog is a list that up to a fixed number of goroutines work off; they end
// when it is empty. Its fields need active.mu.
type backlog[T any] struct {
	list    []T
	workers int
}

func (b *backlog[T]) pop() (v T, ok bool) {
	if len(b.list) == 0 {
		b.list = nil
		return v, false
	}
	v = b.list[0]
	var zero T
	b.list[0] = zero
	b.list = b.list[1:]
	return v, true
}

// sleep waits for d, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
