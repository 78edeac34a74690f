package rpc

import "log/slog"

// Defaults of a connection.
const (
	// DefaultMaxFrame is the largest message in bytes, its head included.
	DefaultMaxFrame = 1 << 20
	// DefaultMaxInFlight is how many requests may wait for an answer at once.
	DefaultMaxInFlight = 256
	// budgetFrames times the largest frame is how many bytes the requests in
	// flight on one connection may have together.
	budgetFrames = 16
)

// Option changes a default of a server, a client or a link.
type Option func(*options)

type options struct {
	maxFrame    int
	maxInFlight int
	log         *slog.Logger
}

func newOptions(opts []Option) options {
	o := options{maxFrame: DefaultMaxFrame, maxInFlight: DefaultMaxInFlight, log: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// MaxFrame sets the largest message in bytes. A server closes a connection that
// sends a larger one; a client refuses to send it with ErrTooLarge.
func MaxFrame(bytes int) Option { return func(o *options) { o.maxFrame = bytes } }

// MaxInFlight sets how many requests may be in flight on one connection. A
// server stops reading at that number; a client makes further callers wait.
func MaxInFlight(n int) Option { return func(o *options) { o.maxInFlight = n } }

// Logger sets where faults go that no caller can be told of. The default
// discards them.
func Logger(l *slog.Logger) Option { return func(o *options) { o.log = l } }
