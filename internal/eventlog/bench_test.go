package eventlog

import (
	"context"
	"syscall"
	"testing"
	"time"

	"tabard/internal/rpc"
)

// example is the events of one message, new ones each time, as their processes make them.
func example(tell func(Event)) {
	p := Party{
		Session: "8f3a6c21d07be954", Message: "0192f3a5c1d2e3f4", Envelope: "0192f3a5c1d2e3f4.0", Sender: "ann@sender.example.org",
		Address: "bob@recipient.example.net",
	}
	tell(&Message{
		ID: p.Message, Session: p.Session, Sender: p.Sender, Size: 4096, Recipients: 1,
		HeaderID: "20261128120000.8f3a6c21@sender.example.org", Protocol: "ESMTPS", Peer: "192.0.2.10",
	})
	tell(&Envelope{Party: p, Action: "out", Destination: "out/recipient.example.net"})
	tell(&Session{
		ID: p.Session, Direction: In, Listener: "0.0.0.0:25", Peer: "192.0.2.10", Name: "mail.sender.example.org", Helo: "mail.sender.example.org",
		TLS: "TLSv1.3:TLS_AES_128_GCM_SHA256", Verdict: "unchecked", Began: time.Now(), Messages: 1, Reason: "quit",
	})
	tell(&Attempt{
		Party: p, Action: "out", Host: "mx.recipient.example.net", Peer: "198.51.100.7:25", Source: "192.0.2.1", TLSWanted: "may", TLSHad: "encrypt",
		Outcome: OK, Code: 250, Status: "2.0.0", Text: "Ok: queued as 1A2B3C4D5E", DurationMS: 12, DelayMS: 30,
	})
	tell(&Result{Party: p, Result: Relayed, Code: 250, Status: "2.0.0", Text: "Ok: queued as 1A2B3C4D5E", DelayMS: 30})
	tell(&Session{
		ID: "8f3a6c21d07be955", Direction: Out, Peer: "198.51.100.7:25", Name: "mx.recipient.example.net", Helo: "mx.example.org",
		TLS: "TLSv1.3:TLS_AES_128_GCM_SHA256", Verdict: "verified", Began: time.Now(), Messages: 1, Reason: "idle",
	})
}

// What a message costs the processes that tell of it: to note its events, and to hand
// them on as well.
func BenchmarkFeed(b *testing.B) {
	b.Run("record", func(b *testing.B) { benchFeed(b, discard{}) })
	b.Run("hand-on", func(b *testing.B) {
		coding, err := rpc.NewCoding()
		if err != nil {
			b.Fatal(err)
		}
		benchFeed(b, encoder{coding})
	})
}

// discard is a lookup that takes everything at once.
type discard struct{}

func (discard) Call(context.Context, string, any, any) error { return nil }

// encoder is one at the other end of a connection that takes everything at once.
type encoder struct{ coding *rpc.Coding }

func (e encoder) Call(_ context.Context, _ string, args, _ any) error {
	_, err := e.coding.Marshal(args)
	return err
}

func benchFeed(b *testing.B, c rpc.Caller) {
	f := NewFeed(c, Options{Process: "queue", Node: "mx.example.org", MaxEvents: 1 << 30, MaxBytes: 1 << 40, Flush: time.Hour})
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		example(f.Record)
	}
	f.Close()
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/1000/float64(b.N), "cpu-us/message")
	if s := f.Stats(); s.Lost > 0 {
		b.Errorf("%d events are lost", s.Lost)
	}
}

// cpu returns the processor time that this process used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What a batch costs lookup to check.
func BenchmarkCheck(b *testing.B) {
	batch := &Batch{}
	for batch.Len() < MaxBatch-10 {
		example(func(e Event) {
			e.Common().At = time.Now()
			if e.Kind() != KindSession { // the queue tells of none
				batch.Add(e)
			}
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := batch.check("queue", time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(batch.Len())/b.Elapsed().Seconds(), "events/s")
}
