// Package stack lets goroutines that are about to call deeply do so cheaply.
package stack

// size of the frame, in bytes: decoding an answer of another process takes about
// half of it, storing a message less.
const size = 14 << 10

// Grow makes room on the caller's stack. A stack grows by being copied, frame by
// frame; that is cheap while few functions are on it, and was a tenth of the time of
// a short SMTP session when it happened deep inside a decoder. Where there is room
// already it costs a fraction of a microsecond, for zeroing that.
func Grow() { _ = touch(size / 2) }

//go:noinline
func touch(i int) byte {
	var frame [size]byte
	frame[i] = 1
	return frame[i/2]
}
