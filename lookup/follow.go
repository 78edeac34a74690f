package lookup

import (
	"context"
	"fmt"
	"strings"

	"tabard/internal/address"
	"tabard/table"
)

// maxInclude bounds an included file, in bytes.
const maxInclude = 1 << 20

// follow goes on with the elements of an alias answer for n.
func (x *expansion) follow(ctx context.Context, n node, row table.Row) error {
	nodes, err := table.ParseNodes(row)
	if err != nil {
		return fmt.Errorf("alias of %.300q: %w", n.name(), err)
	}
	return x.followNodes(ctx, n, nodes)
}

func (x *expansion) followNodes(ctx context.Context, n node, nodes []table.Node) error {
	if len(nodes) == 0 {
		return fmt.Errorf("alias of %.300q is empty", n.name())
	}
	if len(nodes)+len(x.pending) > maxSteps {
		return fmt.Errorf("%w: more than %d steps", errTooMany, maxSteps)
	}
	for _, e := range nodes {
		if err := x.followNode(ctx, n, e); err != nil {
			return err
		}
	}
	return nil
}

func (x *expansion) followNode(ctx context.Context, n node, e table.Node) error {
	switch e.Kind {
	case table.NodeError:
		return errorNode(e)
	case table.NodeInclude:
		return x.include(ctx, n, e.Text)
	case table.NodeAddress:
		return x.followAddress(ctx, n, e.Text)
	case table.NodeUser:
		next := node{user: e.Text, addr: n.addr, action: n.action, depth: n.depth + 1, from: n.from}
		next.same = n.user != "" && strings.EqualFold(n.user, e.Text)
		x.pending = append(x.pending, next)
		return nil
	}
	err := fmt.Errorf("alias of %.300q: not supported yet: delivery to a %s (%.300q)", n.name(), e.Kind, e.Text)
	x.s.log.Warn("alias cannot be expanded", "error", err)
	return err
}

// followAddress goes on with an address; one that maps to itself is the mailbox
// itself.
func (x *expansion) followAddress(ctx context.Context, n node, text string) error {
	addr, err := x.s.parseRecipient(text)
	if err != nil {
		return fmt.Errorf("alias of %.300q: %w", n.name(), err)
	}
	if n.user != "" && !n.born || table.Fold(plainAddress(addr)) != table.Fold(plainAddress(n.addr)) {
		x.pending = append(x.pending, node{addr: addr, depth: n.depth + 1, from: n.from})
		return nil
	}
	if n.action.explicitBase {
		if found, err := x.mailbox(ctx, n); found || err != nil {
			return err
		}
	}
	return x.deliverUser(ctx, node{user: addr.Local, addr: n.addr, action: n.action, depth: n.depth})
}

// include goes on with the elements of a file.
func (x *expansion) include(ctx context.Context, n node, path string) error {
	key := "include\x00" + n.key() + "\x00" + path
	if x.seen[key] {
		return nil
	}
	x.seen[key] = true
	nodes, err := readInclude(path)
	if err != nil {
		return fmt.Errorf("alias of %.300q: include: %w", n.name(), err)
	}
	next := n
	if next.depth++; next.depth > maxDepth {
		return fmt.Errorf("alias of %.300q: include %s: more than %d levels", n.name(), path, maxDepth)
	}
	return x.followNodes(ctx, next, nodes)
}

func readInclude(path string) ([]table.Node, error) {
	text, err := table.ReadRegular(path, maxInclude)
	if err != nil {
		return nil, err
	}
	nodes, err := table.ParseInclude(strings.NewReader(text), maxTargets)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nodes, nil
}

// errorNode is the reply that an alias asks for. Its text may begin with an
// enhanced status code of its own.
func errorNode(e table.Node) error {
	r := &refusal{code: e.Code, enhanced: fmt.Sprintf("%d.0.0", e.Code/100), text: address.OneLine(e.Text, 400)}
	code, text, ok := strings.Cut(r.text, " ")
	if ok && isEnhanced(code, e.Code) {
		r.enhanced, r.text = code, text
	}
	return r
}

// isEnhanced reports whether s is a status code of RFC 3463 of the class of code.
func isEnhanced(s string, code int) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != fmt.Sprint(code/100) {
		return false
	}
	for _, p := range parts[1:] {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}
