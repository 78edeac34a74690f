package table

import (
	"errors"
	"fmt"

	"tabard/internal/address"
	"tabard/internal/config"
)

// Relay is one URL of a relayhost answer, not yet parsed.
type Relay struct {
	URL      string
	Priority int // lower is tried first
	// Weight is how often, among those of one priority, it comes first, compared
	// with the others; negative: it was not said, and their order counts.
	Weight int
}

// Ordered reports whether a priority or weight was given.
func (r Relay) Ordered() bool { return r.Priority != 0 || r.Weight >= 0 }

// ParseRelayHosts reads a relayhost answer: relay URLs, each of which its priority
// and its weight may follow, in the same column or in columns of their own.
func ParseRelayHosts(row Row) ([]Relay, error) {
	var all []Relay
	given := 0 // numbers after the last URL
	for _, text := range listOf(row) {
		url, order := config.CutRelayOrder(text)
		if url != "" {
			all, given = append(all, Relay{URL: url, Weight: -1}), 0
		}
		for _, n := range order {
			if given++; len(all) == 0 || given > 2 {
				return nil, fmt.Errorf("relayhost: %q: a number that belongs to no URL", address.OneLine(text, 100))
			}
			last := &all[len(all)-1]
			if given == 1 {
				last.Priority = n
			} else if last.Weight = n; n < 0 {
				return nil, fmt.Errorf("relayhost: negative weight of %q", address.OneLine(last.URL, 100))
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("relayhost: no URL in the answer")
	}
	return all, nil
}
