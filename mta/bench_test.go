package mta

import (
	"fmt"
	"strings"
	"testing"

	"tabard/queue"
)

// Delivery of 4 KiB messages to a go-smtp server that discards them. Both sides
// run in this process.
func BenchmarkDelivery(b *testing.B) {
	body := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 57))
	for _, sessions := range []int{1, 50} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			_, addr := startSink(b, false)
			w := newWorld(b, func(c *Config) {
				c.Limits.PerDestination, c.Limits.Waiting, c.Logger = sessions, 1000, nil
			})
			w.at("192.0.2.3:25", addr).relay(plainRelay).start()
			b.SetBytes(int64(len(body)))
			jobs := make([]queue.Job, b.N)
			for i := range jobs {
				jobs[i] = job(i+1, "x@example.org")
				jobs[i].Body, jobs[i].Message.Size = body, int64(len(body))
			}
			b.ReportAllocs()
			b.ResetTimer()
			w.queue.push(jobs...)
			for i := range jobs {
				if r := w.queue.await(b, jobs[i].Envelopes[0].ID); r.Outcome != queue.Delivered {
					b.Fatal(stat(r))
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
