package rpc

import (
	"context"
	"errors"
	"strings"
)

// maxErrorText bounds the text of an error on the wire, in bytes.
const maxErrorText = 4 << 10

// code tells on the wire which error an answer carries; codeOK is an answer
// without one.
type code byte

const (
	codeOK code = iota
	codeOther
	codeUnavailable
	codeNotFound
	codeNoSpace
	codeTooLarge
	codeInvalid
	codeBusy
	codeDeadline
	codeCanceled
)

// sentinel returns the error that a code stands for, nil when there is none.
func (c code) sentinel() error {
	switch c {
	case codeUnavailable:
		return ErrUnavailable
	case codeNotFound:
		return ErrNotFound
	case codeNoSpace:
		return ErrNoSpace
	case codeTooLarge:
		return ErrTooLarge
	case codeInvalid:
		return ErrInvalid
	case codeBusy:
		return ErrBusy
	case codeDeadline:
		return context.DeadlineExceeded
	case codeCanceled:
		return context.Canceled
	}
	return nil
}

// codeOf returns the code whose sentinel err wraps.
func codeOf(err error) code {
	for c := codeUnavailable; c <= codeCanceled; c++ {
		if errors.Is(err, c.sentinel()) {
			return c
		}
	}
	return codeOther
}

// mark leads the error strings that carry a code through net/rpc, which knows
// errors as text only.
const mark = "\x00"

// coded makes err survive net/rpc: its Error() is what joinCode writes.
type coded struct{ err error }

func (e coded) Error() string { return joinCode(codeOf(e.err), e.err.Error()) }

func joinCode(c code, text string) string { return mark + string([]byte{byte(c)}) + text }

// splitCode takes apart what joinCode joined. Any other text is an error of
// net/rpc itself, such as a method that does not exist: an invalid request.
func splitCode(s string) (code, string) {
	if rest, ok := strings.CutPrefix(s, mark); ok && rest != "" {
		return code(rest[0]), rest[1:]
	}
	return codeInvalid, s
}

// RemoteError is an error that a handler in another process returned.
type RemoteError struct {
	Text     string // as the handler's error printed, at most 4 KiB
	sentinel error
}

// Error returns the handler's text.
func (e *RemoteError) Error() string { return e.Text }

// Unwrap returns the sentinel of this package, or the context error, that the
// handler's error wrapped; nil when it wrapped none of them.
func (e *RemoteError) Unwrap() error { return e.sentinel }

func remoteError(s string) error {
	c, text := splitCode(s)
	if text == "" {
		text = "unknown error"
	}
	return &RemoteError{Text: text, sentinel: c.sentinel()}
}

func truncate(s string, max int) string {
	if len(s) > max {
		return s[:max]
	}
	return s
}
