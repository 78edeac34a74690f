package metrics

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tabard/internal/count"
	"tabard/internal/privsep"
)

// snapshot is what everybody said in answer to one question.
type snapshot struct {
	at       time.Time
	status   *privsep.Status // nil: the supervisor did not answer
	readings map[string]reading
	descs    map[string][]count.Desc
}

// ask asks every process, and the supervisor, side by side: one that hangs takes
// nothing from the others.
func (s *Server) ask(ctx context.Context) *snapshot {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	snap := &snapshot{at: time.Now(), readings: map[string]reading{}, descs: map[string][]count.Desc{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, src := range s.sources {
		snap.descs[name] = src.descs
		all.Go(func() {
			r, err := src.ask(ctx)
			if err != nil {
				s.opts.Log.Warn("metrics of a process are missing", "process", name, "error", err)
			}
			mu.Lock()
			defer mu.Unlock()
			snap.readings[name] = r
		})
	}
	all.Go(func() {
		st, err := s.opts.Status(ctx)
		if err != nil {
			s.opts.Log.Warn("metrics of the processes are missing", "error", err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		snap.status = &st
	})
	all.Wait()
	return snap
}

// collector gives a snapshot to the library.
type collector struct {
	snap *snapshot
	log  *slog.Logger
}

// Describe says nothing: which metrics there are depends on the answers.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	b := &builder{out: out, log: c.log, seen: map[string]bool{}}
	for name, descs := range c.snap.descs {
		r := c.snap.readings[name]
		b.gauge("tabard_metrics_source_up", "Whether the process answered the question for its numbers: 1 or 0.", truth(r.up), "process", name)
		if r.goroutines > 0 {
			b.gauge("tabard_process_goroutines", "Goroutines of the process.", float64(r.goroutines), "process", name)
			b.gauge("tabard_process_heap_bytes", "Bytes of the objects on the heap of the process.", float64(r.heap), "process", name)
		}
		for i := range descs {
			if r.values != nil {
				b.counted(&descs[i], r.values[i])
			}
		}
	}
	if st := c.snap.status; st != nil {
		b.processes(st)
	}
	if f := c.snap.readings[procLookup].figures; f != nil {
		b.tables(f.Tables)
		b.certificates(f)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// builder makes metrics.
type builder struct {
	out  chan<- prometheus.Metric
	log  *slog.Logger
	seen map[string]bool
}

// maxLabel bounds a label's value, in bytes.
const maxLabel = 300

// gauge adds one number; pairs are names and values of labels.
func (b *builder) gauge(name, help string, v float64, pairs ...string) {
	b.add(prometheus.GaugeValue, name, help, v, pairs)
}

// counter is gauge for what only grows.
func (b *builder) counter(name, help string, v float64, pairs ...string) {
	b.add(prometheus.CounterValue, name, help, v, pairs)
}

func (b *builder) add(kind prometheus.ValueType, name, help string, v float64, pairs []string) {
	var names, values []string
	for i := 0; i+1 < len(pairs); i += 2 {
		names = append(names, pairs[i])
		values = append(values, strings.ToValidUTF8(pairs[i+1][:min(len(pairs[i+1]), maxLabel)], "?"))
	}
	// Of two with the same labels the first one counts; the library would refuse both.
	key := name + "\x00" + strings.Join(values, "\x00")
	if b.seen[key] {
		return
	}
	b.seen[key] = true
	b.put(prometheus.NewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, v, values...))
}

func (b *builder) put(m prometheus.Metric, err error) {
	if err != nil {
		b.log.Error("a metric is left out", "error", err)
		return
	}
	b.out <- m
}

// counted adds the series of a Desc.
func (b *builder) counted(d *count.Desc, values []float64) {
	desc := prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	for i := range d.SeriesLen() {
		var labels []string
		if len(d.Series) > 0 {
			labels = d.Series[i]
		}
		numbers := values[i*d.Width() : (i+1)*d.Width()]
		switch d.Kind {
		case count.Histogram:
			b.put(histogram(desc, d.Buckets, numbers, labels))
		case count.Gauge:
			b.put(prometheus.NewConstMetric(desc, prometheus.GaugeValue, numbers[0], labels...))
		default:
			b.put(prometheus.NewConstMetric(desc, prometheus.CounterValue, numbers[0], labels...))
		}
	}
}

// histogram adds up the buckets, which in Prometheus hold those below them, too.
func histogram(desc *prometheus.Desc, bounds, numbers []float64, labels []string) (prometheus.Metric, error) {
	buckets := make(map[float64]uint64, len(bounds))
	total := 0.0
	for i, bound := range bounds {
		total += numbers[i]
		buckets[bound] = uint64(total)
	}
	total += numbers[len(bounds)]
	return prometheus.NewConstHistogram(desc, uint64(total), numbers[len(bounds)+1], buckets, labels...)
}
