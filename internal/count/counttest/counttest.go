// Package counttest reads, in tests, what was counted.
package counttest

import (
	"strconv"
	"strings"

	"tabard/internal/count"
)

// Of returns what values say of the Desc called name, by the values of its labels
// with a space between them, without what is zero. values are those of descs. The
// numbers of a Desc without labels are named by their index.
func Of(name string, descs []count.Desc, values [][]float64) map[string]float64 {
	numbers := make(map[string]float64)
	for i, d := range descs {
		if d.Name != name {
			continue
		}
		for j, n := range values[i] {
			switch {
			case n == 0:
			case len(d.Series) == 0:
				numbers[strconv.Itoa(j)] = n
			default:
				numbers[strings.Join(d.Series[j/d.Width()], " ")] = n
			}
		}
	}
	return numbers
}
