package dns

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Asked is one question to DNS, and the answer that counted.
type Asked struct {
	Question string        `json:"question"` // "MX of example.org"
	Answers  []string      `json:"answers,omitempty"`
	TTL      time.Duration `json:"ttl"` // how much longer the answer is believed
	Cached   bool          `json:"cached,omitempty"`
	Hosts    bool          `json:"hosts_file,omitempty"` // from the hosts file, not from DNS
	Fault    string        `json:"fault,omitempty"`      // why there is no answer: also that there is none
}

// Trace collects the questions of a resolver while something is worked out, for
// telling people how it came about. It is safe for concurrent use.
type Trace struct {
	mu    sync.Mutex
	asked []Asked
	seen  map[string]bool
}

// maxTraced bounds a trace.
const maxTraced = 200

type traceKey struct{}

// WithTrace returns a context whose questions t collects, each once.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// Asked returns the questions so far, in their order.
func (t *Trace) Asked() []Asked {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Asked(nil), t.asked...)
}

// trace adds a question to the trace of ctx, if there is one: else it is not put
// into words.
func trace(ctx context.Context, tell func() Asked) {
	t, ok := ctx.Value(traceKey{}).(*Trace)
	if !ok {
		return
	}
	a := tell()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[a.Question] || len(t.asked) == maxTraced {
		return
	}
	if t.seen == nil {
		t.seen = make(map[string]bool)
	}
	t.seen[a.Question] = true
	t.asked = append(t.asked, a)
}

// askedOf tells of a question to DNS.
func askedOf(q question, ans *answer, left time.Duration, cached bool, err error) Asked {
	a := Asked{Question: q.String(), TTL: left, Cached: cached}
	if ans != nil {
		for _, mx := range ans.mx {
			a.Answers = append(a.Answers, fmt.Sprintf("%d %s.", mx.Pref, mx.Host))
		}
		for _, ip := range ans.addrs {
			a.Answers = append(a.Answers, ip.String())
		}
		a.Answers = append(a.Answers, ans.names...)
	}
	if err != nil {
		a.Fault = err.Error()
	}
	return a
}
