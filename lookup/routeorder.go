package lookup

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"tabard/table"
)

// inOrder returns relays by priority, and of one priority by lot: each comes first
// as often as its weight says (RFC 2782 does so with SRV records). Those of weight
// 0 come after the others, and where no weight is given the order stays.
func inOrder(relays []table.Relay) []table.Relay {
	sorted := slices.Clone(relays)
	slices.SortStableFunc(sorted, func(a, b table.Relay) int { return cmp.Compare(a.Priority, b.Priority) })
	for rest := sorted; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(r table.Relay) bool { return r.Priority != rest[0].Priority })
		if n < 0 {
			n = len(rest)
		}
		if slices.ContainsFunc(rest[:n], func(r table.Relay) bool { return r.Weight >= 0 }) {
			draw(rest[:n])
		}
		rest = rest[n:]
	}
	return sorted
}

// draw puts relays of one priority into an order by lot.
func draw(group []table.Relay) {
	for ; len(group) > 1; group = group[1:] {
		total := 0.0
		for _, r := range group {
			total += lots(r)
		}
		at := rand.Float64() * total
		for i, r := range group {
			if at -= lots(r); at < 0 {
				copy(group[1:i+1], group[:i])
				group[0] = r
				break
			}
		}
	}
}

// lots is how many lots a relay has; one whose weight was not said has one.
func lots(r table.Relay) float64 {
	if r.Weight < 0 {
		return 1
	}
	return float64(r.Weight)
}
