package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"tabard/internal/bodycode"
	"tabard/internal/rpc"
)

// recodeBatch is how many bodies are stored anew in one transaction. Those in files
// are never in memory.
const recodeBatch = 64

// BodyAdmin is what the command line asks about how bodies are stored.
type BodyAdmin interface {
	// Bodies tells how bodies are stored.
	Bodies(ctx context.Context) (BodyState, error)
	// Recode stores some bodies anew, under the present key, and says where it got to.
	// It may be called again from there, and from the beginning at any time.
	Recode(ctx context.Context, r RecodeRequest) (RecodeReply, error)
}

// BodyState is how bodies are stored.
type BodyState struct {
	Encoding bodycode.Encoding // of mail that comes
	Keys     []string          // ids of those at hand
	Stored   []EncodingCount
	// Behind is how many messages are being taken that began before the present
	// keys were in force: one of them may yet be stored under any other.
	Behind int
}

// RecodeRequest says which bodies are stored anew: those under another key than the
// present one, and with All also those that are not encrypted. If nothing is encrypted
// at present, they are stored in clear.
type RecodeRequest struct {
	All   bool
	From  bodycode.Encoding // where the last call got to; empty at first
	After MessageID
}

// RecodeReply is what came of a RecodeRequest.
type RecodeReply struct {
	Done, Failed int
	Fault        string // the first failure
	From         bodycode.Encoding
	After        MessageID
	End          bool // there are no more
}

// epochs counts what began before the present way of storing bodies.
type epochs struct {
	mu   sync.Mutex
	now  *int
	past []*int // with some left
}

// begin notes that a body will be stored in the present way, or a later one. end is
// called once, when it is durable, or given up.
func (e *epochs) begin() (end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now == nil {
		e.now = new(int)
	}
	n := e.now
	*n++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		*n--
	}
}

// next puts another way in force by change.
func (e *epochs) next(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
	if e.now != nil && *e.now > 0 {
		e.past = append(e.past, e.now)
	}
	e.now = nil
}

// behind counts what began before the present way.
func (e *epochs) behind() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.past = slices.DeleteFunc(e.past, func(n *int) bool { return *n == 0 })
	sum := 0
	for _, n := range e.past {
		sum += *n
	}
	return sum
}

// Bodies implements BodyAdmin.
func (q *Queue) Bodies(ctx context.Context) (BodyState, error) {
	s := BodyState{Behind: q.epochs.behind()} // before the counts: what ends meanwhile is in them
	if c := q.coder.Load(); c != nil {
		s.Encoding, s.Keys = c.Encoding(), c.Keys()
	}
	if err := q.count.await(ctx); err != nil {
		return s, err
	}
	var err error
	s.Stored, err = q.store.Encodings(ctx)
	plain := q.count.messages.Load()
	for _, n := range s.Stored {
		plain -= n.Messages
	}
	if plain > 0 { // the two counts are not of the same instant
		s.Stored = append(s.Stored, EncodingCount{Messages: plain})
	}
	return s, err
}

// Recode implements BodyAdmin.
func (q *Queue) Recode(ctx context.Context, r RecodeRequest) (RecodeReply, error) {
	if q.coder.Load() == nil {
		return RecodeReply{}, fmt.Errorf("%w: no key is configured", rpc.ErrInvalid)
	}
	q.recodeMu.Lock()
	defer q.recodeMu.Unlock()
	defer q.epochs.begin()()
	behind := q.epochs.behind() > 0
	from, ok, err := q.recodeFrom(ctx, &r)
	if err != nil {
		return RecodeReply{}, err
	}
	if !ok {
		return RecodeReply{End: !behind}, nil
	}
	reply := RecodeReply{From: from, After: r.After}
	batch, err := q.store.Recode(ctx, from, r.After, recodeBatch)
	if len(batch) == 0 && err == nil {
		reply.From, reply.After = from+"\x00", 0 // the least that is greater
		return reply, nil
	}
	if done := q.recoded(ctx, batch, &reply); done != nil {
		err = errors.Join(err, done)
	}
	return reply, err
}

// recodeFrom is the first encoding, in order, that is yet to be dealt with.
func (q *Queue) recodeFrom(ctx context.Context, r *RecodeRequest) (from bodycode.Encoding, ok bool, err error) {
	stored, err := q.store.Encodings(ctx)
	if err != nil {
		return "", false, err
	}
	if r.All { // whether there are any shows as they are asked for
		stored = append(stored, EncodingCount{})
	}
	key := q.coder.Load().Encoding().Key()
	slices.SortFunc(stored, func(a, b EncodingCount) int { return cmp.Compare(a.Encoding, b.Encoding) })
	for _, s := range stored {
		old := s.Encoding.Key()
		if old == key || old == "" && !r.All || s.Encoding < r.From {
			continue
		}
		if s.Encoding > r.From {
			r.After = 0
		}
		return s.Encoding, true, nil
	}
	return "", false, nil
}

// recoded makes a batch durable, and counts.
func (q *Queue) recoded(ctx context.Context, batch []Recoded, reply *RecodeReply) error {
	change := &Change{}
	for _, r := range batch {
		switch {
		case r.Err == nil:
			change.Recode = append(change.Recode, r)
		case !errors.Is(r.Err, rpc.ErrNotFound): // which is mail that is gone
			if reply.Failed++; reply.Fault == "" { // the first is enough to look into
				q.log.Error("message body not stored anew", "message", r.ID.String(), "error", r.Err)
				reply.Fault = r.Err.Error()
			}
		}
	}
	if len(change.Recode) > 0 {
		if err := q.commits.do(context.WithoutCancel(ctx), change); err != nil {
			return err
		}
	}
	reply.Done = change.Affected
	if len(batch) > 0 {
		reply.After = batch[len(batch)-1].ID
	}
	return nil
}
