package textlog

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"tabard/internal/eventlog"
)

// ErrInput marks what is wrong with a file, as opposed to one of its lines.
var ErrInput = errors.New("cannot be read")

// maxLine is the longest line that is read, in bytes. Postfix' have 2,000 and Tabard's
// some 3,000.
const maxLine = 64 << 10

// ReadAll reads all lines of a file, which may be packed by gzip, bzip2 or zstd. unknown is told of each
// line that is not understood, by its number, from 1. An error is one of unknown's, one of
// emit's, or an ErrInput.
func (r *Reader) ReadAll(in io.Reader, unknown func(n int64, err error) error) error {
	b, err := unpacked(in)
	if err != nil {
		return err
	}
	for n := int64(1); ; n++ {
		text, long, err := nextLine(b)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%w after line %d: %w", ErrInput, n-1, err)
		}
		if err != nil && text == "" {
			return nil
		}
		fault := error(nil)
		switch {
		case long:
			fault = r.unread("longer than %d bytes", maxLine)
		case err != nil:
			// Half a line would make another event than the whole one, when that comes.
			fault = r.unread("it has no end: the log was cut there, or is being written")
		default:
			fault = r.Line(text)
		}
		if fault != nil && errors.Is(fault, ErrNotUnderstood) {
			fault = unknown(n, fault)
		}
		if fault != nil {
			return fault
		}
		if err != nil {
			return nil
		}
	}
}

// unread counts a line that is not even looked at.
func (r *Reader) unread(format string, args ...any) error {
	r.stats.Lines++
	r.stats.Unknown++
	return misread(format, args...)
}

// unpacked returns what is in a file that may be packed.
func unpacked(in io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReaderSize(in, maxLine)
	start, _ := b.Peek(6) // what is shorter is not packed
	begins := func(magic string) bool { return bytes.HasPrefix(start, []byte(magic)) }
	switch {
	case begins("\x1f\x8b"):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInput, err)
		}
		return bufio.NewReaderSize(z, maxLine), nil
	case begins("BZh"):
		return bufio.NewReaderSize(bzip2.NewReader(b), maxLine), nil
	case begins("\x28\xb5\x2f\xfd"):
		// One at a time it has nothing that needs an end.
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInput, err)
		}
		return bufio.NewReaderSize(z, maxLine), nil
	case begins("\xfd7zXZ"):
		return nil, fmt.Errorf("%w: it is packed by xz: give what xz -dc says to standard input", ErrInput)
	}
	return b, nil
}

// maxWindow bounds the memory that a file packed by zstd may ask for; zstd -19 takes 8 MiB.
const maxWindow = 128 << 20

// nextLine returns a line. One that is too long is passed over.
func nextLine(b *bufio.Reader) (text string, long bool, err error) {
	part, err := b.ReadSlice('\n')
	text = string(part)
	for errors.Is(err, bufio.ErrBufferFull) {
		long = true
		_, err = b.ReadSlice('\n')
	}
	return text, long, err
}

// Began returns the time of the first line of a file that has one, among its first lines;
// zero: none has.
func Began(in io.Reader, o Options, latest time.Time, year int) time.Time {
	const enough = 100
	r := New(o, func(eventlog.Event) error { return nil })
	r.Begin(latest, year)
	b, err := unpacked(in)
	if err != nil {
		return time.Time{}
	}
	for range enough {
		text, long, err := nextLine(b)
		if text != "" && !long {
			_ = r.Line(text) // what it is, is told when it is imported
			if !r.now.at.IsZero() {
				return r.now.at
			}
		}
		if err != nil {
			break
		}
	}
	return time.Time{}
}
