// Package count counts what a process does, for the metrics of the whole server.
//
// A Desc says what is counted, and which series of it there are: the values of
// labels are fixed before anything is counted, so nothing that a stranger says can
// become one. Between processes only numbers travel (Report). Who reads them has
// the same Descs from the same program, and takes no numbers that do not fit.
package count

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
)

// Kind is what the numbers of a Desc mean.
type Kind uint8

// The kinds.
const (
	Counter   Kind = iota + 1 // only grows
	Gauge                     // is set, or goes up and down
	Histogram                 // how many observations fell into which bucket, and their sum
)

// Desc describes what is counted.
type Desc struct {
	Name string // as Prometheus names metrics: tabard_smtpd_messages_total
	Help string // one line
	Kind Kind
	// Labels are the names of the labels, and Series the values that they have
	// together. What fits none of Series counts for the last one. A Desc without
	// labels has one series.
	Labels []string
	Series [][]string
	// Buckets are the upper bounds of a Histogram, in its unit, rising. One more
	// bucket takes what is above.
	Buckets []float64
}

// SeriesLen is the number of series.
func (d *Desc) SeriesLen() int { return max(1, len(d.Series)) }

// Width is how many numbers a series has: one, or for a Histogram one for each
// bucket, that above included, and the sum.
func (d *Desc) Width() int {
	if d.Kind == Histogram {
		return len(d.Buckets) + 2
	}
	return 1
}

// Cross returns every combination of the values of labels, for Desc.Series.
func Cross(values ...[]string) [][]string {
	all := [][]string{nil}
	for _, list := range values {
		var longer [][]string
		for _, head := range all {
			for _, v := range list {
				longer = append(longer, append(slices.Clone(head), v))
			}
		}
		all = longer
	}
	return all
}

// Vec counts for one Desc. It is safe for concurrent use, and takes no lock.
type Vec struct {
	desc Desc
	bits []atomic.Uint64 // of float64
}

// Add adds n, which for a Counter is not negative, to the series with these values.
func (v *Vec) Add(n float64, values ...string) { v.add(v.series(values)*v.desc.Width(), n) }

// Set makes n the number of the series with these values.
func (v *Vec) Set(n float64, values ...string) {
	v.bits[v.series(values)*v.desc.Width()].Store(math.Float64bits(n))
}

// Observe counts x for the series of a Histogram with these values.
func (v *Vec) Observe(x float64, values ...string) { v.ObserveAt(v.series(values), x) }

// ObserveAt counts x for a series by its index in Series: for hot paths with many.
func (v *Vec) ObserveAt(series int, x float64) {
	at := series * v.desc.Width()
	bucket, _ := slices.BinarySearch(v.desc.Buckets, x)
	v.add(at+bucket, 1)
	v.add(at+len(v.desc.Buckets)+1, x)
}

func (v *Vec) add(i int, n float64) {
	for {
		old := v.bits[i].Load()
		if v.bits[i].CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+n)) {
			return
		}
	}
}

func (v *Vec) series(values []string) int {
	for i, s := range v.desc.Series {
		if slices.Equal(s, values) {
			return i
		}
	}
	return v.desc.SeriesLen() - 1
}

// Set is what one process counts. The zero Set is empty.
type Set struct{ vecs []*Vec }

// New adds a Vec. A Set is complete before anything of it is counted.
func (s *Set) New(d Desc) *Vec {
	v := &Vec{desc: d, bits: make([]atomic.Uint64, d.SeriesLen()*d.Width())}
	s.vecs = append(s.vecs, v)
	return v
}

// Descs returns what is counted, in the order of New.
func (s *Set) Descs() []Desc {
	all := make([]Desc, len(s.vecs))
	for i, v := range s.vecs {
		all[i] = v.desc
	}
	return all
}

// Values returns the numbers now: for each Desc in turn those of its series.
func (s *Set) Values() [][]float64 {
	all := make([][]float64, len(s.vecs))
	for i, v := range s.vecs {
		all[i] = make([]float64, len(v.bits))
		for j := range v.bits {
			all[i][j] = math.Float64frombits(v.bits[j].Load())
		}
	}
	return all
}

// Check reports numbers that cannot be those of descs: a peer may say anything.
func Check(descs []Desc, values [][]float64) error {
	if len(values) != len(descs) {
		return fmt.Errorf("numbers for %d metrics, want %d", len(values), len(descs))
	}
	for i := range descs {
		d := &descs[i]
		if want := d.SeriesLen() * d.Width(); len(values[i]) != want {
			return fmt.Errorf("%d numbers for %s, want %d", len(values[i]), d.Name, want)
		}
		for _, n := range values[i] {
			if math.IsNaN(n) || math.IsInf(n, 0) || n < 0 {
				return fmt.Errorf("%g for %s", n, d.Name)
			}
		}
	}
	return nil
}
