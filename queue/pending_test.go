package queue

import (
	"context"
	"errors"
	"net"
	"testing"

	"tabard/internal/rpc"
)

// sink is a Client that takes nothing.
type sink struct{ Client }

func (sink) Create(context.Context) (Writer, error) { return sinkWriter{}, nil }

type sinkWriter struct{ Writer }

func (sinkWriter) Abort() {}

// A peer that was taken over cannot fill the memory with recipients of messages that it
// never ends; what it ends makes room.
func TestPendingRecipientsAreBounded(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ServeClient(ctx, ours, sink{}) }()
	client := rpc.NewClient(theirs)
	defer func() {
		stop()
		_ = client.Close()
		<-served
	}()
	batch := make([]wireRecipient, 2500)
	for i := range batch {
		batch[i].Address = "a@b.example"
	}
	fill := func() (writers []int64, err error) {
		for len(writers) <= maxPending/MaxRecipients {
			id, err := rpc.Invoke[rpc.None, int64](ctx, client, "Queue.Create", rpc.None{})
			if err != nil {
				t.Fatal(err)
			}
			writers = append(writers, id)
			for range MaxRecipients / len(batch) {
				if _, err := rpc.Invoke[recipientsRequest, rpc.None](ctx, client, "Queue.Recipients", recipientsRequest{Writer: id, Recipients: batch}); err != nil {
					return writers, err
				}
			}
		}
		return writers, nil
	}
	for range 2 {
		writers, err := fill()
		if !errors.Is(err, rpc.ErrBusy) || len(writers) != maxPending/MaxRecipients+1 {
			t.Fatalf("writer %d: %v", len(writers), err)
		}
		for _, id := range writers[:len(writers)-1] { // the last has ended by its error
			if _, err := rpc.Invoke[int64, rpc.None](ctx, client, "Queue.Abort", id); err != nil {
				t.Fatal(err)
			}
		}
	}
}
