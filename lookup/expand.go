package lookup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/table"
)

// Bounds of one expansion.
const (
	maxDepth   = 10     // alias steps from the recipient to a target
	maxTargets = 8_000  // final destinations: what one answer carries
	maxSteps   = 50_000 // addresses and users looked at
)

// errTooMany means that an expansion was given up. It is temporary: the tables
// can be mended.
var errTooMany = errors.New("alias expansion is too large")

// expansion turns one recipient into its targets.
type expansion struct {
	s        *Service
	session  *Session
	tag      string
	sender   string
	internal bool // the first address, too, is our own (a bounce)

	rule    string // position of the rule that the first address matched
	pending []node
	steps   int
	seen    map[string]bool
	had     map[Target]bool
	targets []Target
	tracer  *tracer       // nil: nobody wants to know how it went
	matched time.Duration // in the rules
}

// node is an address or a local user still to be looked at.
type node struct {
	user   string          // user name, with +tag; empty for an address
	addr   address.Address // the address, or the nearest one above a user
	action *action         // of a user: the action that expands and delivers
	depth  int
	same   bool // a user whose alias is himself: delivered, not looked up again
	born   bool // the user is the local part of addr, not an alias's word
	back   bool // an address that SRS led back to
	from   int  // step that led here, for the tracer
}

// run expands addr. A refusal anywhere refuses the whole recipient, so that no
// member of a list is lost without a word.
func (x *expansion) run(ctx context.Context, addr address.Address) error {
	x.seen, x.had = make(map[string]bool), make(map[Target]bool)
	x.pending = append(x.pending, node{addr: addr})
	for len(x.pending) > 0 {
		n := x.pending[0]
		x.pending = x.pending[1:]
		if err := x.step(ctx, n); err != nil {
			return err
		}
	}
	if len(x.targets) == 0 {
		return &refusal{code: 550, enhanced: "5.4.6", suffix: ": alias loop"}
	}
	return nil
}

func (x *expansion) step(ctx context.Context, n node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.tracer.begin(&n)
	if n.depth > maxDepth {
		return &refusal{code: 550, enhanced: "5.4.6", suffix: fmt.Sprintf(": more than %d levels of aliases", maxDepth), cause: n.cause("too deep")}
	}
	if x.seen[n.key()] {
		x.tracer.note("seen before")
		return nil
	}
	x.seen[n.key()] = true
	if x.steps++; x.steps > maxSteps {
		return fmt.Errorf("%w: more than %d steps", errTooMany, maxSteps)
	}
	if n.user != "" {
		return x.expandUser(ctx, n)
	}
	return x.expandAddress(ctx, n)
}

// key is the same for nodes that would expand alike.
func (n node) key() string {
	if n.user == "" {
		return table.Fold(plainAddress(n.addr))
	}
	same := ""
	if n.same {
		same = "="
	}
	return strings.Join([]string{same + n.action.Name, table.Fold(n.user), table.Fold(plainAddress(n.addr))}, "\x00")
}

// name is what a refusal calls the node.
func (n node) name() string {
	if n.user != "" && !n.born {
		return n.user
	}
	return n.addr.String()
}

// cause says what was wrong with a node that an alias led to. The recipient's
// own address needs no saying.
func (n node) cause(what string) string {
	if n.depth == 0 {
		return ""
	}
	return n.name() + ": " + what
}

// expandAddress takes an address through the ruleset.
func (x *expansion) expandAddress(ctx context.Context, n node) error {
	orig, badSRS := x.s.srs.reverse(n.addr, x.sender)
	switch {
	case errors.Is(badSRS, errNoKey):
		return badSRS
	case badSRS == nil && orig != (address.Address{}):
		return x.step(ctx, node{addr: orig, depth: n.depth + 1, back: true, from: n.from})
	}
	internal := x.internal || n.depth > 0
	began := time.Now()
	res, err := x.s.match(ctx, &subject{session: x.session, tag: x.tag, internal: internal, sender: x.sender, rcpt: n.addr, tracer: x.tracer})
	x.matched += time.Since(began)
	if err != nil {
		return err
	}
	if x.rule == "" && res.rule != nil {
		x.rule = res.rule.pos
	}
	switch {
	case res.rule == nil && x.internal && (n.depth == 0 || n.back):
		return x.add(Target{Relay: true, Address: n.addr.String()})
	case res.rule == nil:
		return x.noRule(n, internal, res.known)
	case res.rule.reject:
		return &refusal{code: 550, enhanced: "5.7.1", rule: res.rule.pos, cause: n.cause("rejected by the rule at " + res.rule.pos)}
	}
	a := res.rule.action
	if a.Method == config.MethodRelay {
		return x.add(Target{Action: a.Name, Relay: true, Address: n.addr.String()})
	}
	if badSRS != nil {
		return &refusal{code: 550, enhanced: "5.1.1", suffix: ": " + badSRS.Error(), cause: n.cause("bad SRS address")}
	}
	n.action = a
	if a.virtual != nil {
		return x.expandVirtual(ctx, n)
	}
	n.user, n.born = n.addr.Local, true
	return x.step(ctx, n)
}

func (x *expansion) noRule(n node, internal, known bool) error {
	no := &refusal{code: 550, enhanced: "5.7.1", cause: n.cause("no rule matches")}
	if !internal && !known && !x.session.Socket && x.session.User == "" {
		no.suffix = ": relaying denied"
	}
	return no
}

// expandVirtual looks an address up in the action's virtual table. A mailbox of
// an explicit userbase comes after the keys that name the address and before
// those for any domain and catch-alls: where users are kept by full address,
// every mailbox would otherwise need an alias of its own. OpenSMTPD does not do
// this; it keeps users by bare name.
func (x *expansion) expandVirtual(ctx context.Context, n node) error {
	keys := table.VirtualKeys(n.addr.Local, n.addr.Domain, x.s.delim)
	exact := len(table.AliasKeys(n.addr.Local, x.s.delim))
	_, row, err := n.action.virtual.First(ctx, table.Alias, keys[:exact])
	if err == nil {
		return x.follow(ctx, n, row)
	}
	if !errors.Is(err, table.ErrNotFound) {
		return err
	}
	if n.action.explicitBase {
		if found, err := x.mailbox(ctx, n); found || err != nil {
			return err
		}
	}
	_, row, err = n.action.virtual.First(ctx, table.Alias, keys[exact:])
	if errors.Is(err, table.ErrNotFound) {
		return unknownUser(n)
	}
	if err != nil {
		return err
	}
	return x.follow(ctx, n, row)
}

// expandUser looks a user up in the action's alias table, then in its userbase.
func (x *expansion) expandUser(ctx context.Context, n node) error {
	t, keys := n.action.alias, table.AliasKeys(n.user, x.s.delim)
	if n.action.virtual != nil {
		t, keys = n.action.virtual, table.VirtualKeys(n.user, "", x.s.delim)
	}
	if t != nil && !n.same {
		_, row, err := t.First(ctx, table.Alias, keys)
		if err == nil {
			return x.follow(ctx, n, row)
		}
		if !errors.Is(err, table.ErrNotFound) {
			return err
		}
	}
	return x.deliverUser(ctx, n)
}

// deliverUser makes a target of a user who has an account.
func (x *expansion) deliverUser(ctx context.Context, n node) error {
	if err := x.deliverable(n); err != nil {
		return err
	}
	user := table.Fold(table.UserKey(n.user, x.s.delim))
	_, err := n.action.userbase.Lookup(ctx, table.UserInfo, user)
	if errors.Is(err, table.ErrNotFound) {
		if n.born && n.action.explicitBase {
			if found, err := x.mailbox(ctx, n); found || err != nil {
				return err
			}
		}
		return unknownUser(n)
	}
	if err != nil {
		return err
	}
	return x.add(Target{Action: n.action.Name, Address: n.addr.String(), User: user})
}

// mailbox makes a target of an address that is itself the name of an account,
// with its +tag or without.
func (x *expansion) mailbox(ctx context.Context, n node) (bool, error) {
	if n.action.Method == config.MethodExpandOnly {
		return false, nil
	}
	for _, local := range table.AliasKeys(n.addr.Local, x.s.delim) {
		user := table.Fold(local + "@" + n.addr.Domain)
		_, err := n.action.userbase.Lookup(ctx, table.UserInfo, user)
		if errors.Is(err, table.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		if err := x.deliverable(n); err != nil {
			return false, err
		}
		return true, x.add(Target{Action: n.action.Name, Address: n.addr.String(), User: user})
	}
	return false, nil
}

func (x *expansion) deliverable(n node) error {
	switch n.action.Method {
	case config.MethodExpandOnly:
		return unknownUser(n)
	case config.MethodForwardOnly:
		return fmt.Errorf("%s: action %q: not supported yet: forward-only", n.action.Pos, n.action.Name)
	}
	return nil
}

func (x *expansion) add(t Target) error {
	x.tracer.target(t)
	if x.had[t] {
		return nil
	}
	if len(x.targets) == maxTargets {
		return fmt.Errorf("%w: more than %d targets", errTooMany, maxTargets)
	}
	x.had[t] = true
	x.targets = append(x.targets, t)
	return nil
}

func unknownUser(n node) error {
	return &refusal{code: 550, enhanced: "5.1.1", cause: n.cause("no such user")}
}

// plainAddress is an address without the quotes that SMTP may need.
func plainAddress(a address.Address) string { return a.Local + "@" + a.Domain }
