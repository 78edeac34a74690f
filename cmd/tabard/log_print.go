package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"tabard/internal/eventlog"
)

// eventPrinter prints events. flush has to be called after them.
type eventPrinter struct {
	out     *bufio.Writer
	zone    *time.Location
	json    bool
	trace   bool      // times are those since the first event
	first   time.Time // of them
	printed int
}

func newEventPrinter(w io.Writer) *eventPrinter {
	return &eventPrinter{out: bufio.NewWriterSize(w, 64<<10), zone: time.UTC}
}

// eventTime is the form of times of events.
const eventTime = "2006-01-02T15:04:05.000Z07:00"

func (p *eventPrinter) print(e eventlog.Event) error {
	if p.printed++; p.json {
		return p.printObject(e)
	}
	h := e.Common()
	when := h.At.In(p.zone).Format(eventTime)
	if p.trace {
		if p.first.IsZero() {
			p.first = h.At
			if _, err := fmt.Fprintln(p.out, when); err != nil {
				return err
			}
		}
		when = fmt.Sprintf("%+11.3fs", h.At.Sub(p.first).Seconds())
	}
	_, err := fmt.Fprintf(p.out, "%s %-8s %s\n", when, e.Kind(), strings.Join(strings.Fields(eventText(e)), " "))
	return err
}

// flush writes what was printed. An error stays.
func (p *eventPrinter) flush() error { return p.out.Flush() }

// printObject prints an event on one line, its columns in their order.
func (p *eventPrinter) printObject(e eventlog.Event) error {
	var b strings.Builder
	b.WriteString(`{"kind":"` + string(e.Kind()) + `"`)
	for _, f := range e.Fields() {
		if f.Name == "key" {
			continue
		}
		var value any
		switch v := f.Value.(type) {
		case *string:
			value = *v
		case *int64:
			value = *v
		case *time.Time:
			value = v.UTC().Format(eventTime)
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		b.WriteString(`,"` + f.Name + `":` + string(text))
	}
	_, err := fmt.Fprintln(p.out, b.String()+"}")
	return err
}

// eventText is an event on one line, for people.
func eventText(e eventlog.Event) string {
	switch e := e.(type) {
	case *eventlog.Session:
		return sessionText(e)
	case *eventlog.Message:
		return messageText(e)
	case *eventlog.Envelope:
		return fmt.Sprintf("%s %s %s", cmp.Or(e.Envelope, e.Message), fromTo(&e.Party), given("action", e.Action))
	case *eventlog.Attempt:
		return attemptText(e)
	case *eventlog.Result:
		return fmt.Sprintf("%s %s %s %s %s", cmp.Or(e.Envelope, e.Message, e.Session), e.Result, fromTo(&e.Party), after(e.DelayMS), said(e.Code, e.Status, e.Text))
	case *eventlog.Trace:
		return fmt.Sprintf("%s %s %s", cmp.Or(e.Envelope, e.Message), e.Stage, time.Duration(e.DurationUS)*time.Microsecond)
	case *eventlog.Loss:
		return fmt.Sprintf("%d events of %s on %s lost between %s and %s: %s", e.Count, e.Process, e.Node,
			e.Since.UTC().Format(time.RFC3339), e.Until.UTC().Format(time.RFC3339), e.Reason)
	}
	return ""
}

func sessionText(e *eventlog.Session) string {
	way := "from"
	if e.Direction == eventlog.Out {
		way = "to"
	}
	tls := ""
	if e.TLS != "" {
		tls = "tls=" + e.TLS + " " + e.Verdict
	}
	return fmt.Sprintf("%s %s %s %s %s %s %s messages=%d after %s: %s", e.ID, way, peerText(e.Name, e.Peer), given("listener", e.Listener),
		given("helo", e.Helo), tls, given("user", e.Login), e.Messages, e.At.Sub(e.Began).Round(time.Millisecond), e.Reason)
}

func messageText(e *eventlog.Message) string {
	text := fmt.Sprintf("%s from=<%s> size=%d recipients=%d %s %s %s %s", e.ID, e.Sender, e.Size, e.Recipients,
		given("proto", e.Protocol), given("client", e.Peer), given("user", e.Login), given("session", e.Session))
	if e.HeaderID != "" {
		text += " message-id=<" + e.HeaderID + ">"
	}
	return text + " " + given("report-about", e.About)
}

func attemptText(e *eventlog.Attempt) string {
	via, tls := "", ""
	if e.Host != "" || e.Peer != "" {
		via = "via " + peerText(e.Host, e.Peer)
	}
	if e.TLSHad != "" || e.TLSWanted != "" {
		tls = "tls=" + cmp.Or(e.TLSHad, "-")
		if e.TLSWanted != "" {
			tls += " wanted=" + e.TLSWanted
		}
	}
	took := ""
	if e.DurationMS > 0 {
		took = "took " + (time.Duration(e.DurationMS) * time.Millisecond).String()
	}
	return fmt.Sprintf("%s %s %s %s %s %s %s %s", cmp.Or(e.Envelope, e.Message), e.Outcome, fromTo(&e.Party), via, tls, took, after(e.DelayMS), said(e.Code, e.Status, e.Text))
}

// peerText is a host name and its address, as far as they are known.
func peerText(name, addr string) string {
	switch {
	case name == "" || name == addr:
		return cmp.Or(addr, "-")
	case addr == "":
		return name
	}
	return name + "[" + addr + "]"
}

func fromTo(p *eventlog.Party) string {
	text := "from=<" + p.Sender + ">"
	if p.Address != "" {
		text += " to=<" + p.Address + ">"
	}
	if p.Recipient != "" && p.Recipient != p.Address {
		text += " for=<" + p.Recipient + ">"
	}
	return text
}

// given is key=value, or nothing without a value.
func given(key, value string) string {
	if value == "" {
		return ""
	}
	return key + "=" + value
}

func after(ms int64) string {
	if ms == 0 {
		return ""
	}
	return "delay=" + (time.Duration(ms) * time.Millisecond).String()
}

func said(code int64, status, text string) string {
	var words []string
	if code > 0 {
		words = append(words, strconv.FormatInt(code, 10))
	}
	if status != "" && !strings.HasPrefix(text, status) {
		words = append(words, status)
	}
	return strings.Join(append(words, text), " ")
}
