package main

import (
	"fmt"
	"io"
	"time"

	"tabard/queue"
)

// printWishes prints what a message asks of the schedule, if it does.
func printWishes(out io.Writer, m *queue.Message) {
	if m.Priority != 0 {
		_, _ = fmt.Fprintf(out, "priority: %d\n", m.Priority)
	}
	if m.Release.After(m.Created) {
		_, _ = fmt.Fprintf(out, "not before: %s\n", m.Release.Format(time.RFC3339))
	}
	if by := m.DeliverBy; !by.Time.IsZero() {
		then := "or return it"
		if by.Notify {
			then = "or tell the sender"
		}
		_, _ = fmt.Fprintf(out, "deliver by: %s, %s\n", by.Time.Format(time.RFC3339), then)
	}
}
