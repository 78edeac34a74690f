package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"tabard/internal/dns"
	"tabard/lookup"
	"tabard/mta"
)

// explainer prints an explanation for people: a word, and what is to be said of
// it, indented as deep as the step it belongs to.
type explainer struct {
	w   io.Writer
	err error
}

func (p *explainer) line(depth int, word, form string, args ...any) {
	if p.err == nil {
		text := strings.TrimRight(fmt.Sprintf("%-9s "+form, append([]any{word}, args...)...), " ")
		_, p.err = fmt.Fprintf(p.w, "%s%s\n", strings.Repeat("  ", depth), text)
	}
}

func printExplanation(w io.Writer, e *explanation, r lookup.ExplainRequest) error {
	p := &explainer{w: w}
	p.line(0, "session", "%s", e.Session)
	p.line(0, "message", "from <%s> to <%s>", r.Sender, r.Recipient)
	p.steps(e.Steps, 0, 0)
	if e.Cut {
		p.line(0, "...", "and more, which is left out")
	}
	for _, h := range e.Held {
		p.line(0, "held", "%s", h)
	}
	for _, l := range e.Local {
		p.local(l)
	}
	for i := range e.Relays {
		p.relay(&e.Relays[i])
	}
	p.line(0, "result", "%s", result(e))
	return p.err
}

// result says in one line what becomes of the message.
func result(e *explanation) string {
	switch {
	case e.Explanation.Fault != "":
		return "refused for now: " + e.Explanation.Fault
	case e.Reply.Code != 0:
		text := fmt.Sprintf("refused: %d %s %s", e.Reply.Code, e.Reply.Enhanced, e.Reply.Text)
		if e.Cause != "" {
			text += " (" + e.Cause + ")"
		}
		return text
	}
	text := "accepted"
	switch e.Code {
	case exNoHost, exNoUser:
		text += ", and would bounce"
	case exTempFail:
		text += ", and would have to wait"
	}
	return text
}

// steps prints the steps that parent led to, each with those that it led to.
func (p *explainer) steps(steps []lookup.ExplainStep, parent, depth int) {
	for _, s := range steps {
		if s.Parent != parent {
			continue
		}
		if s.User != "" {
			p.line(depth, "user", "%s", s.User)
		} else {
			p.line(depth, "address", "%s", s.Address)
		}
		p.rules(depth+1, s.Rules)
		for _, a := range s.Answers {
			p.answer(depth+1, a)
		}
		for _, t := range s.Targets {
			if t.Relay {
				p.line(depth+1, "goes", "out by action %q", t.Action)
			} else {
				p.line(depth+1, "goes", "to the mailbox of %s by action %q", t.User, t.Action)
			}
		}
		if s.Note != "" {
			p.line(depth+1, "note", "%s", s.Note)
		}
		p.steps(steps, s.Number, depth+1)
	}
}

func (p *explainer) rules(depth int, rules []lookup.RuleTrace) {
	for _, r := range rules {
		value := r.Value
		if value == "" {
			value = "none"
		}
		switch {
		case r.Fault != "":
			p.line(depth, "rule", "%s  cannot be judged: %s: %s", r.Rule, r.Condition, r.Fault)
		case !r.Fits:
			p.line(depth, "rule", "%s  passed over: %s (here: %s)", r.Rule, r.Condition, value)
		case r.Action == "":
			p.line(depth, "rule", "%s  fits: reject", r.Rule)
		default:
			p.line(depth, "rule", "%s  fits: action %q", r.Rule, r.Action)
		}
	}
}

// answer prints a question to a table and what it said.
func (p *explainer) answer(depth int, a lookup.TableAnswer) {
	question := strings.TrimSpace(a.Table + " " + a.Service + " " + a.Key)
	switch {
	case a.Fault != "":
		p.line(depth, "table", "%s: FAILED: %s", question, a.Fault)
	case !a.Found:
		p.line(depth, "table", "%s: no row", question)
	case len(a.Rows) == 0:
		p.line(depth, "table", "%s: found", question)
	}
	for _, row := range a.Rows {
		p.line(depth, "table", "%s: %s", question, columns(row))
	}
}

// columns shows a row, and what is empty as such.
func columns(row []string) string {
	shown := make([]string, len(row))
	for i, text := range row {
		if shown[i] = text; text == "" {
			shown[i] = `""`
		}
	}
	return strings.Join(shown, ", ")
}

func (p *explainer) local(l lookup.LocalPlan) {
	p.line(0, "deliver", "%s: %s %s as %s", l.Target.Address, l.Method, l.Place, l.User)
	if l.Fault != "" {
		p.line(1, "fault", "%s", l.Fault)
	}
}

func (p *explainer) relay(r *relayPlan) {
	by := "by MX, without an action"
	if r.Action != "" {
		by = fmt.Sprintf("by action %q", r.Action)
	}
	p.line(0, "relay", "%s %s", strings.Join(r.Recipients, ", "), by)
	for _, a := range r.Answers {
		p.answer(1, a)
	}
	for _, a := range r.DNS {
		p.dns(a)
	}
	if r.Helo != "" {
		p.line(1, "ehlo", "%s", r.Helo)
	}
	for _, s := range r.Sources {
		p.line(1, "source", "%s, ehlo %s", s.Address, s.Helo)
	}
	if r.MailFrom != "" {
		p.line(1, "sender", "<%s> instead", r.MailFrom)
	}
	if r.Certificate != "" {
		p.line(1, "cert", "%s", r.Certificate)
	}
	for _, h := range r.Hosts {
		p.host(h)
	}
	if r.Explanation.Fault != nil {
		p.fault(1, r.Explanation.Fault)
	}
}

func (p *explainer) fault(depth int, f *mta.Fault) {
	word := "waits"
	if f.Final {
		word = "bounces"
	}
	p.line(depth, word, "%s %s", f.Status, f.Text)
}

func (p *explainer) dns(a dns.Asked) {
	where := ""
	switch {
	case a.Hosts:
		where = " (hosts file)"
	case a.Cached:
		where = fmt.Sprintf(" (known, for %s)", a.TTL.Round(time.Second))
	case a.TTL > 0:
		where = fmt.Sprintf(" (TTL %s)", a.TTL.Round(time.Second))
	}
	text := strings.Join(a.Answers, ", ")
	if a.Fault != "" {
		text = strings.TrimPrefix(a.Fault, a.Question+": ")
	}
	p.line(1, "dns", "%s: %s%s", a.Question, text, where)
}

func (p *explainer) host(h mta.HostPlan) {
	text := h.URL
	if h.MX {
		text += fmt.Sprintf(" (MX %d)", h.Preference)
	}
	if h.TLS != "" {
		text += fmt.Sprintf("  TLS %s, wanted by %s", h.TLS, h.TLSBy)
	}
	if len(h.Names) > 0 {
		text += ", certificate for " + strings.Join(h.Names, " or ")
	}
	if h.Label != "" {
		text += ", login " + h.Label
	}
	p.line(1, "host", "%s", text)
	if h.Fault != nil {
		p.line(2, "fault", "%s %s", h.Fault.Status, h.Fault.Text)
	}
	for _, a := range h.Addresses {
		text := a.Address
		if a.Why != "" {
			text += fmt.Sprintf("  left alone for %s: %s", time.Until(a.Until).Round(time.Second), a.Why)
		}
		p.line(2, "address", "%s", text)
		for _, pr := range a.Probes {
			p.probe(pr)
		}
	}
}

func (p *explainer) probe(pr mta.Probe) {
	if pr.Fault != "" {
		p.line(3, "probe", "%s, %s: FAILED: %s", pr.How, pr.Took, pr.Fault)
	} else {
		p.line(3, "probe", "%s, %s: would take mail", pr.How, pr.Took)
	}
	if pr.TLS != "" {
		p.line(3, "tls", "%s %s", pr.Level, pr.TLS)
	}
	switch {
	case pr.Reason != "":
		p.line(3, "peer", "%s: %s, %s", pr.Verdict, pr.Reason, pr.Seen)
	case pr.Seen != "":
		p.line(3, "peer", "%s %s, %s", pr.Verdict, pr.Identity, pr.Seen)
	}
	if len(pr.Offers) > 0 {
		p.line(3, "offers", "%s", strings.Join(pr.Offers, ", "))
	}
}
