package eventdb

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"tabard/internal/eventlog"
	"tabard/internal/pgtest"
)

// How many events a database takes, in whole batches and in small ones, of
// what the queue tells of relayed mail.
func BenchmarkInsert(b *testing.B) {
	for _, messages := range []int{3, eventlog.MaxBatch / 4} {
		b.Run(fmt.Sprintf("sqlite/%d", messages), func(b *testing.B) { benchInsert(b, Source{Path: emptyFile(b)}, messages) })
		b.Run(fmt.Sprintf("postgres/%d", messages), func(b *testing.B) { benchInsert(b, Source{Conninfo: pgtest.Database(b)}, messages) })
	}
}

func benchInsert(b *testing.B, src Source, messages int) {
	d := opened(b, src)
	if err := d.Write(b.Context(), relayed(-1, 1)); err != nil { // makes the tables
		b.Fatal(err)
	}
	var events int
	b.ReportAllocs()
	before := cpu(b)
	for n := 0; b.Loop(); n++ {
		batch := relayed(n, messages)
		events += batch.Len()
		if err := d.Write(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/1000/float64(events), "cpu-us/event")
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

// relayed is a batch of the events of n messages.
func relayed(batch, n int) *eventlog.Batch {
	b := &eventlog.Batch{}
	now := noon().Add(time.Duration(batch) * time.Second)
	for i := range n {
		key := int64(batch*n + i)
		head := eventlog.Head{At: now.Add(time.Duration(i) * time.Millisecond), Key: key, Node: "mx.example.org", Process: "queue"}
		id := fmt.Sprintf("%016x", key<<20)
		p := eventlog.Party{
			Session: fmt.Sprintf("%016x", uint64(key)*0x9e3779b97f4a7c15), Message: id, Envelope: id + ".0", Sender: fmt.Sprintf("ann%d@sender.example.org", i),
			Address: fmt.Sprintf("bob%d@recipient%d.example.net", i, i%50), Domain: fmt.Sprintf("recipient%d.example.net", i%50),
		}
		b.Messages = append(b.Messages, eventlog.Message{
			Head: head, ID: id, Session: p.Session, Sender: p.Sender, Domain: "sender.example.org", Size: 4096, Recipients: 1,
			HeaderID: id + "@sender.example.org", Protocol: "ESMTPS", Peer: "192.0.2.10",
		})
		b.Envelopes = append(b.Envelopes, eventlog.Envelope{Head: head, Party: p, Action: "out", Destination: "out/" + p.Domain})
		b.Attempts = append(b.Attempts, eventlog.Attempt{
			Head: head, Party: p, Action: "out", Host: "mx." + p.Domain, Peer: "198.51.100.7:25", Source: "192.0.2.1", TLSWanted: "may", TLSHad: "encrypt",
			Outcome: eventlog.OK, Code: 250, Status: "2.0.0", Text: "Ok: queued as 1A2B3C4D5E", DurationMS: 12, DelayMS: 30,
		})
		b.Results = append(b.Results, eventlog.Result{Head: head, Party: p, Result: eventlog.Relayed, Code: 250, Status: "2.0.0", Text: "Ok: queued as 1A2B3C4D5E", DelayMS: 30})
	}
	return b
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
