package sqlite

import (
	"strings"
	"time"

	"tabard/queue"
)

// deadline is a message's DeliverBy as columns deadline and deadline_mode have it.
func deadline(by *queue.DeliverBy) (at int64, mode string) {
	if by.Time.IsZero() {
		return 0, ""
	}
	mode = "R"
	if by.Notify {
		mode = "N"
	}
	if by.Trace {
		mode += "T"
	}
	return by.Time.UnixMilli(), mode
}

// deliverBy reads what deadline wrote.
func deliverBy(at int64, mode string) queue.DeliverBy {
	if at == 0 {
		return queue.DeliverBy{}
	}
	return queue.DeliverBy{Time: time.UnixMilli(at), Notify: strings.HasPrefix(mode, "N"), Trace: strings.HasSuffix(mode, "T")}
}
