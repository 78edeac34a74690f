package count

import (
	"context"
	"runtime"
	"runtime/metrics"

	"tabard/internal/rpc"
)

// Report is what a process says when it is asked for its numbers.
type Report struct {
	Goroutines int
	Heap       uint64      // bytes of objects that live or were not swept yet
	Values     [][]float64 // see Set.Values
}

const (
	nameReports = "Count"
	heapBytes   = "/memory/classes/heap/objects:bytes"
)

// Register serves the numbers that values returns, and those of the process itself.
func Register(s *rpc.Server, values func(context.Context) ([][]float64, error)) error {
	return s.Register(nameReports, &reports{values})
}

// Read asks the process at the other end of c for its numbers. They may be
// anything until Check has seen them.
func Read(ctx context.Context, c rpc.Caller) (Report, error) {
	return rpc.Invoke[rpc.None, Report](ctx, c, nameReports+".Read", rpc.None{})
}

type reports struct {
	values func(context.Context) ([][]float64, error)
}

// Read serves Count.Read.
func (r *reports) Read(c *rpc.Call[rpc.None], reply *rpc.Reply[Report]) error {
	return rpc.Do(c, reply, func(ctx context.Context, _ rpc.None) (Report, error) {
		values, err := r.values(ctx)
		if err != nil {
			return Report{}, err
		}
		heap := []metrics.Sample{{Name: heapBytes}}
		metrics.Read(heap)
		report := Report{Goroutines: runtime.NumGoroutine(), Values: values}
		if heap[0].Value.Kind() == metrics.KindUint64 {
			report.Heap = heap[0].Value.Uint64()
		}
		return report, nil
	})
}
