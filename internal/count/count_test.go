package count

import (
	"context"
	"errors"
	"math"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"tabard/internal/rpc"
)

func example() (*Set, *Vec, *Vec, *Vec) {
	var s Set
	return &s, s.New(Desc{Name: "a_total", Kind: Counter}),
		s.New(Desc{Name: "b", Kind: Gauge, Labels: []string{"x", "y"}, Series: Cross([]string{"1", "2"}, []string{"k", "l"})}),
		s.New(Desc{Name: "c_seconds", Kind: Histogram, Labels: []string{"x"}, Series: [][]string{{"1"}, {"other"}}, Buckets: []float64{1, 10}})
}

func TestCounting(t *testing.T) {
	s, a, b, c := example()
	a.Add(1)
	a.Add(2)
	b.Add(3, "1", "l")
	b.Add(-1, "1", "l")
	b.Set(7, "2", "k")
	b.Add(1, "nobody", "knows") // counts for the last
	for _, x := range []float64{0, 1, 1.5, 10, 11} {
		c.Observe(x, "1")
	}
	c.Observe(5, "stranger")
	want := [][]float64{{3}, {0, 2, 7, 1}, {2, 2, 1, 23.5, 0, 1, 0, 5}}
	if got := s.Values(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := Check(s.Descs(), s.Values()); err != nil {
		t.Error(err)
	}
}

func TestConcurrentCounting(t *testing.T) {
	s, a, _, c := example()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				a.Add(1)
				c.Observe(2, "1")
			}
		})
	}
	all.Wait()
	if got := s.Values(); got[0][0] != 8000 || got[2][1] != 8000 || got[2][3] != 16000 {
		t.Errorf("%v", got)
	}
}

func TestCheckRefusesWhatDoesNotFit(t *testing.T) {
	s, _, _, _ := example()
	for name, spoil := range map[string]func([][]float64) [][]float64{
		"a metric short": func(v [][]float64) [][]float64 { return v[1:] },
		"one too many":   func(v [][]float64) [][]float64 { return append(v, []float64{1}) },
		"a series short": func(v [][]float64) [][]float64 { v[1] = v[1][1:]; return v },
		"not a number":   func(v [][]float64) [][]float64 { v[0][0] = math.NaN(); return v },
		"infinite":       func(v [][]float64) [][]float64 { v[0][0] = math.Inf(1); return v },
		"negative":       func(v [][]float64) [][]float64 { v[2][0] = -1; return v },
		"none":           func([][]float64) [][]float64 { return nil },
	} {
		if Check(s.Descs(), spoil(s.Values())) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestReports(t *testing.T) {
	s, a, _, _ := example()
	a.Add(5)
	fault := errors.New("the store is away")
	for _, tt := range []struct {
		values func(context.Context) ([][]float64, error)
		fault  string
	}{
		{func(context.Context) ([][]float64, error) { return s.Values(), nil }, ""},
		{func(context.Context) ([][]float64, error) { return nil, fault }, fault.Error()},
	} {
		near, far := net.Pipe()
		srv := rpc.NewServer()
		if err := Register(srv, tt.values); err != nil {
			t.Fatal(err)
		}
		go func() { _ = srv.Serve(t.Context(), far) }()
		c := rpc.NewClient(near)
		r, err := Read(t.Context(), c)
		if tt.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("%v, want %s", err, tt.fault)
			}
			continue
		}
		if err != nil || r.Goroutines < 2 || r.Heap < 1000 || !slices.Equal(r.Values[0], []float64{5}) {
			t.Errorf("%+v, %v", r, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
