package lookup

import (
	"context"
	"errors"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/internal/rpc"
	"tabard/table"
	"tabard/table/cache"
)

// Admin is what the command line asks of a running server.
type Admin interface {
	// Query asks a table as the services do.
	Query(ctx context.Context, r QueryRequest) (Answer, error)
	// Tables tells how every declared table does, in the configuration's order.
	Tables(ctx context.Context) ([]TableInfo, error)
	// Certificates tells of the certificates that were asked for.
	Certificates(ctx context.Context) ([]CertificateInfo, error)
	// Changes waits for what a table's source tells of changes.
	Changes(ctx context.Context, r ChangesRequest) ([]Change, error)
	// Explain tells what would become of a message, and why.
	Explain(ctx context.Context, r ExplainRequest) (Explanation, error)
}

var _ Admin = (*Service)(nil)

// TableInfo is how a table does.
type TableInfo struct {
	Name      string       `json:"name"`
	Kind      string       `json:"kind"`
	Services  []string     `json:"services"`  // that the configuration asks it for
	Questions int64        `json:"questions"` // asked of it, from memory or not, since it was opened
	Source    Source       `json:"source"`
	Cache     *cache.Stats `json:"cache,omitempty"` // nil: none is in front of it
}

// ChangesRequest asks for changes after one.
type ChangesRequest struct {
	Table config.TableRef
	After uint64 // number of the last one seen; 0: those remembered
	Now   bool   // do not wait: only say which was the last
}

// Change is a change that a table's source told.
type Change struct {
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Service string    `json:"service,omitempty"` // empty: everything of the table
	Key     string    `json:"key,omitempty"`     // empty: every key of the service
}

// errUncached is the answer where there is nothing to invalidate.
var errUncached = errors.New("the table has no cache: it answers from its source, or from memory")

// Tables implements Admin. No source is asked for it.
func (s *Service) Tables(ctx context.Context) ([]TableInfo, error) {
	infos := make([]TableInfo, 0, len(s.cfg.Tables))
	services := s.services(ctx)
	for _, decl := range s.cfg.Tables {
		if strings.HasPrefix(decl.Name, "<dynamic:") {
			continue // a list that stands in the line that uses it
		}
		ref := config.TableRef(decl.Name)
		t, err := s.tables.get(ref)
		if err != nil {
			return nil, err
		}
		h := s.tables.health[decl.Name]
		info := TableInfo{Name: decl.Name, Kind: decl.Kind, Services: append([]string{}, services[ref]...), Source: h.source()}
		info.Questions = info.Source.Questions
		if c, ok := t.Backend().(*cache.Cache); ok {
			st := c.Stats()
			st.Watch.Error = address.OneLine(st.Watch.Error, maxFault)
			info.Cache = &st
			info.Questions = st.Hits + st.Misses + st.Stale + h.logins.Load()
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// Changes implements Admin.
func (s *Service) Changes(ctx context.Context, r ChangesRequest) ([]Change, error) {
	t, err := s.tables.get(r.Table)
	if err != nil {
		return nil, err
	}
	c, ok := t.Backend().(*cache.Cache)
	if !ok {
		return nil, errUncached
	}
	if r.Now {
		return []Change{{Seq: c.LastChange()}}, nil
	}
	told, err := c.Changes(ctx, r.After)
	changes := make([]Change, 0, len(told))
	for _, t := range told {
		ch := Change{Seq: t.Seq, At: t.At, Key: t.Change.Key}
		if t.Change.Service != 0 {
			ch.Service = t.Change.Service.String()
		}
		changes = append(changes, ch)
	}
	return changes, err
}

const nameAdmin = "LookupAdmin"

// RegisterAdmin serves what the command line may ask.
func RegisterAdmin(s *rpc.Server, a Admin) error { return s.Register(nameAdmin, &adminEdge{a}) }

// NewAdmin returns the Admin behind a connection with RegisterAdmin.
func NewAdmin(c rpc.Caller) Admin { return remoteAdmin{c} }

type adminEdge struct{ a Admin }

// wireQuery is a QueryRequest between processes, where a service goes by its name.
type wireQuery struct {
	Table, Service, Key, Password string
	Fresh                         bool
}

// maxShown bounds the rows of one answer, in bytes.
const maxShown = 512 << 10

// Query serves Admin.Query. What is too long for one answer is cut.
func (e *adminEdge) Query(c *rpc.Call[wireQuery], r *rpc.Reply[Answer]) error {
	return rpc.Do(c, r, func(ctx context.Context, w wireQuery) (Answer, error) {
		service, err := table.ParseService(w.Service)
		if err != nil {
			return Answer{}, err
		}
		a, err := e.a.Query(ctx, QueryRequest{config.TableRef(w.Table), service, w.Key, w.Password, w.Fresh})
		size := 0
		for i, row := range a.Rows {
			for _, col := range row {
				size += 8 + len(col)
			}
			if size > maxShown {
				a.Rows, a.Cut = a.Rows[:i], true
				break
			}
		}
		return a, err
	})
}

// Tables serves Admin.Tables.
func (e *adminEdge) Tables(c *rpc.Call[rpc.None], r *rpc.Reply[[]TableInfo]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) ([]TableInfo, error) { return e.a.Tables(ctx) })
}

// Certificates serves Admin.Certificates.
func (e *adminEdge) Certificates(c *rpc.Call[rpc.None], r *rpc.Reply[[]CertificateInfo]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) ([]CertificateInfo, error) { return e.a.Certificates(ctx) })
}

// Changes serves Admin.Changes.
func (e *adminEdge) Changes(c *rpc.Call[ChangesRequest], r *rpc.Reply[[]Change]) error {
	return rpc.Do(c, r, e.a.Changes)
}

// Explain serves Admin.Explain.
func (e *adminEdge) Explain(c *rpc.Call[ExplainRequest], r *rpc.Reply[Explanation]) error {
	return rpc.Do(c, r, e.a.Explain)
}

type remoteAdmin struct{ c rpc.Caller }

// Query implements Admin.
func (r remoteAdmin) Query(ctx context.Context, req QueryRequest) (Answer, error) {
	w := wireQuery{string(req.Table), req.Service.String(), req.Key, req.Password, req.Fresh}
	return rpc.Invoke[wireQuery, Answer](ctx, r.c, nameAdmin+".Query", w)
}

// Tables implements Admin.
func (r remoteAdmin) Tables(ctx context.Context) ([]TableInfo, error) {
	return rpc.Invoke[rpc.None, []TableInfo](ctx, r.c, nameAdmin+".Tables", rpc.None{})
}

// Certificates implements Admin.
func (r remoteAdmin) Certificates(ctx context.Context) ([]CertificateInfo, error) {
	return rpc.Invoke[rpc.None, []CertificateInfo](ctx, r.c, nameAdmin+".Certificates", rpc.None{})
}

// Changes implements Admin.
func (r remoteAdmin) Changes(ctx context.Context, req ChangesRequest) ([]Change, error) {
	return rpc.Invoke[ChangesRequest, []Change](ctx, r.c, nameAdmin+".Changes", req)
}

// Explain implements Admin.
func (r remoteAdmin) Explain(ctx context.Context, req ExplainRequest) (Explanation, error) {
	return rpc.Invoke[ExplainRequest, Explanation](ctx, r.c, nameAdmin+".Explain", req)
}

var _ Admin = remoteAdmin{}
