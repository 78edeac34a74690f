// Package logging builds the program's logger: one line per event, either JSON
// or text in the order that mail administrators know from their maillog: time,
// process, session id, event, then key=value.
package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// SessionKey is the attribute whose value stands first on a text line, without
// its key.
const SessionKey = "session"

// Options choose the form of the log. It travels to child processes.
type Options struct {
	Format string // "text" or "json"; empty: text
	Level  string // debug, info, warn, error; empty: info
}

// New returns a logger for the process called name that writes to w, which may be a
// Batch.
func New(w io.Writer, name string, o Options) (*slog.Logger, error) {
	log, err := newLogger(w, name, o)
	if b, ok := w.(*Batch); ok && err == nil {
		log = slog.New(prompt{log.Handler(), b})
	}
	return log, err
}

func newLogger(w io.Writer, name string, o Options) (*slog.Logger, error) {
	var level slog.Level
	if o.Level != "" {
		if err := level.UnmarshalText([]byte(o.Level)); err != nil {
			return nil, fmt.Errorf("log level %q: want debug, info, warn or error", o.Level)
		}
	}
	switch o.Format {
	case "json":
		h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
		return slog.New(h).With("process", name, "pid", os.Getpid()), nil
	case "", "text":
		prefix := "tabard/" + name + "[" + strconv.Itoa(os.Getpid()) + "]:"
		return slog.New(&textHandler{w: w, mu: new(sync.Mutex), level: level, prefix: prefix}), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", o.Format)
}

// textHandler writes `TIME tabard/NAME[PID]: [LEVEL] [SESSION] EVENT k=v ...`.
type textHandler struct {
	w       io.Writer
	mu      *sync.Mutex
	level   slog.Level
	prefix  string
	session string
	attrs   []byte // formatted already
	group   string
}

func (h *textHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *textHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.group += name + "."
	return &c
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = slices.Clip(c.attrs)
	for _, a := range attrs {
		if a.Key == SessionKey && c.group == "" {
			c.session = a.Value.String()
			continue
		}
		c.attrs = appendAttr(c.attrs, c.group, a)
	}
	return &c
}

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	session := h.session
	buf := make([]byte, 0, 512)
	buf = r.Time.UTC().AppendFormat(buf, "2006-01-02T15:04:05.000Z")
	buf = append(buf, ' ')
	buf = append(buf, h.prefix...)
	if r.Level != slog.LevelInfo {
		buf = append(buf, ' ')
		buf = append(buf, levelWord(r.Level)...)
	}
	tail := make([]byte, 0, 384)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == SessionKey && h.group == "" {
			session = a.Value.String()
		} else {
			tail = appendAttr(tail, h.group, a)
		}
		return true
	})
	if session != "" {
		buf = append(buf, ' ')
		buf = appendValue(buf, session)
	}
	buf = append(buf, ' ')
	buf = appendSafe(buf, r.Message)
	buf = append(buf, h.attrs...)
	buf = append(buf, tail...)
	buf = append(buf, '\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(buf)
	return err
}

func levelWord(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug:"
	case l < slog.LevelError:
		return "warn:"
	}
	return "error:"
}

func appendAttr(buf []byte, group string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return buf
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, sub := range v.Group() {
			buf = appendAttr(buf, group, sub)
		}
		return buf
	}
	buf = append(buf, ' ')
	buf = append(buf, group...)
	buf = append(buf, a.Key...)
	buf = append(buf, '=')
	switch v.Kind() {
	case slog.KindInt64:
		return strconv.AppendInt(buf, v.Int64(), 10)
	case slog.KindTime:
		return v.Time().UTC().AppendFormat(buf, time.RFC3339)
	case slog.KindDuration:
		return append(buf, v.Duration().Round(time.Millisecond).String()...)
	}
	return appendValue(buf, v.String())
}

// appendValue writes s bare when it is one plain word, else quoted. Text from
// strangers can so neither end the line nor fake another key.
func appendValue(buf []byte, s string) []byte {
	if s == "" {
		return append(buf, `""`...)
	}
	for _, r := range s {
		if r <= ' ' || r == '"' || r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return strconv.AppendQuote(buf, s)
		}
	}
	return append(buf, s...)
}

// appendSafe writes an event's words, which may hold blanks but no controls.
func appendSafe(buf []byte, s string) []byte {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			r = '?'
		}
		buf = utf8.AppendRune(buf, r)
	}
	return buf
}
