package mta

import (
	"context"

	"tabard/internal/rpc"
)

// Explainer is what `tabard explain` asks of a running mta.
type Explainer interface {
	// Explain tells where mail would go now, and why.
	Explain(ctx context.Context, r ExplainRequest) (Explanation, error)
}

var _ Explainer = (*MTA)(nil)

const nameExplain = "MTAExplain"

// RegisterExplainer serves what `tabard explain` may ask.
func RegisterExplainer(s *rpc.Server, e Explainer) error {
	return s.Register(nameExplain, &explainEdge{e})
}

// NewExplainer returns the Explainer behind a connection with RegisterExplainer.
func NewExplainer(c rpc.Caller) Explainer { return remoteExplainer{c} }

type explainEdge struct{ e Explainer }

// Explain serves Explainer.Explain.
func (e *explainEdge) Explain(c *rpc.Call[ExplainRequest], r *rpc.Reply[Explanation]) error {
	return rpc.Do(c, r, e.e.Explain)
}

type remoteExplainer struct{ c rpc.Caller }

// Explain implements Explainer.
func (r remoteExplainer) Explain(ctx context.Context, req ExplainRequest) (Explanation, error) {
	return rpc.Invoke[ExplainRequest, Explanation](ctx, r.c, nameExplain+".Explain", req)
}

var _ Explainer = remoteExplainer{}
