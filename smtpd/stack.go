package smtpd

// deepFrame, in bytes, is about twice what decoding an answer of another process takes
// of the stack; storing a message takes less.
const deepFrame = 14 << 10

// growStack makes room on the caller's stack. A stack grows by being copied, frame by
// frame; that is cheap while few functions are on it, and was a tenth of the time of
// a short session when it happened deep inside a decoder. Where there is room already
// it costs a fraction of a microsecond, for zeroing that.
func growStack() { _ = touch(deepFrame / 2) }

//go:noinline
func touch(i int) byte {
	var frame [deepFrame]byte
	frame[i] = 1
	return frame[i/2]
}
