package lookup

import (
	"slices"
	"strings"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/table"
)

// TableAnswer is one question that was put to a table, as people may see it:
// passwords and keys are left out of the rows.
type TableAnswer struct {
	Table   string     `json:"table"` // its name, or what stands between braces
	Service string     `json:"service"`
	Key     string     `json:"key,omitempty"` // empty: the whole list
	Found   bool       `json:"found"`
	Rows    [][]string `json:"rows,omitempty"`
	Fault   string     `json:"fault,omitempty"` // why it could not be asked, or its answer not be read
}

// RuleTrace is what one match rule made of a recipient.
type RuleTrace struct {
	Rule      string `json:"rule"` // its place in the configuration
	Fits      bool   `json:"fits"`
	Action    string `json:"action,omitempty"` // of one that fits; empty: reject
	Condition string `json:"condition,omitempty"`
	Value     string `json:"value,omitempty"` // what the condition, which does not fit, looked at
	Fault     string `json:"fault,omitempty"` // why the condition could not be judged
}

// ExplainStep is an address or a user of an expansion.
type ExplainStep struct {
	Number  int           `json:"number"`
	Parent  int           `json:"parent,omitempty"` // step whose alias led here; 0: the recipient itself
	Address string        `json:"address,omitempty"`
	User    string        `json:"user,omitempty"`
	Rules   []RuleTrace   `json:"rules,omitempty"` // up to the one that decided
	Answers []TableAnswer `json:"answers,omitempty"`
	Targets []Target      `json:"targets,omitempty"`
	Note    string        `json:"note,omitempty"`
}

// maxTrace bounds what a tracer keeps, in bytes of text.
const maxTrace = 256 << 10

// tracer writes down how an expansion goes. It sees what happens and decides
// nothing; a nil one sees nothing.
type tracer struct {
	s      *Service
	tables table.Trace
	steps  []ExplainStep
	size   int
	cut    bool   // there was more
	cause  string // of a refusal
}

// room reports whether so many bytes may still be kept.
func (t *tracer) room(texts ...string) bool {
	n := 64
	for _, s := range texts {
		n += len(s)
	}
	if t.size+n > maxTrace {
		t.cut = true
		return false
	}
	t.size += n
	return true
}

// now is the step under way.
func (t *tracer) now() *ExplainStep { return &t.steps[len(t.steps)-1] }

// begin begins the step of a node, and makes it the parent of what follows.
func (t *tracer) begin(n *node) {
	if t == nil {
		return
	}
	t.flush()
	step := ExplainStep{Number: len(t.steps) + 1, Parent: n.from, User: n.user}
	if n.user == "" {
		step.Address = n.addr.String()
	}
	if !t.room(step.User, step.Address) {
		return
	}
	t.steps = append(t.steps, step)
	n.from = step.Number
}

// flush gives the step under way the questions that were asked for it.
func (t *tracer) flush() {
	if len(t.steps) == 0 {
		return
	}
	step := t.now()
	for _, a := range t.tables.Take() {
		if answer := t.s.shownAnswer(a); t.room(slices.Concat(append(answer.Rows, []string{answer.Table, answer.Key, answer.Fault})...)...) {
			step.Answers = append(step.Answers, answer)
		}
	}
}

// rule notes what became of a rule, of whose conditions so many held.
func (t *tracer) rule(r *rule, sub *subject, held int, err error) {
	if t == nil || len(t.steps) == 0 {
		return
	}
	t.tables.Take() // said by the condition
	line := RuleTrace{Rule: r.pos, Fits: err == nil && held == len(r.conds)}
	switch {
	case line.Fits && !r.reject:
		line.Action = r.action.Name
	case !line.Fits:
		c := r.conds[held]
		line.Condition, line.Value = t.s.conditionText(c), address.OneLine(c.value(sub), shownLen)
	}
	if err != nil {
		line.Fault = err.Error()
	}
	if t.room(line.Rule, line.Condition, line.Value, line.Fault) {
		t.now().Rules = append(t.now().Rules, line)
	}
}

func (t *tracer) target(target Target) {
	if t == nil || len(t.steps) == 0 {
		return
	}
	if t.room(target.Address, target.User) {
		t.now().Targets = append(t.now().Targets, target)
	}
}

func (t *tracer) note(text string) {
	if t == nil || len(t.steps) == 0 {
		return
	}
	t.now().Note = text
}

func (t *tracer) refused(no *refusal) {
	if t != nil {
		t.cause = no.cause
	}
}

// conditionText is a condition as a configuration has it.
func (s *Service) conditionText(c condition) string {
	text := c.word
	if c.negate {
		text = "!" + text
	}
	if c.cond.Regex {
		text += " regex"
	}
	if ref := c.cond.Table; ref != "" && ref != tableLocalhost && ref != tableLocalnames {
		text += " " + s.tableText(string(ref))
	}
	return text
}

// tableText names a table: "<name>", or what an anonymous one holds.
func (s *Service) tableText(name string) string {
	i := slices.IndexFunc(s.cfg.Tables, func(t config.Table) bool { return t.Name == name })
	if i < 0 || !strings.HasPrefix(name, "<dynamic:") {
		return "<" + name + ">"
	}
	entries := slices.Clone(s.cfg.Tables[i].List)
	for _, kv := range s.cfg.Tables[i].Map {
		entries = append(entries, kv.Key)
	}
	const shown = 5
	if len(entries) > shown {
		entries = append(entries[:shown], "...")
	}
	if len(entries) == 1 {
		return entries[0]
	}
	return "{ " + strings.Join(entries, ", ") + " }"
}

// shownAnswer leaves secrets out of an answer.
func (s *Service) shownAnswer(a table.Asked) TableAnswer {
	out := TableAnswer{Table: s.tableText(a.Table), Service: a.Service.String(), Key: address.OneLine(a.Key, shownLen), Found: a.Found}
	if a.Service == table.Auth {
		out.Key, _, _ = strings.Cut(out.Key, ":")
	}
	if a.Err != nil {
		out.Fault = a.Err.Error()
	}
	for _, row := range a.Rows {
		shown, err := show(a.Service, a.Key, row)
		if err != nil {
			out.Fault = err.Error()
			continue
		}
		for i := range shown {
			shown[i] = address.OneLine(shown[i], 1000)
		}
		out.Rows = append(out.Rows, shown)
	}
	return out
}
