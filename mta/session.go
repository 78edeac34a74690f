package mta

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"tabard/queue"
)

// session is an opened connection over which messages are sent, one at a time.
type session struct {
	mta      *MTA
	id       string
	began    time.Time
	dest     *destination
	lane     *lane // nil: it was forgotten meanwhile
	host     *host
	spot     *spot
	addr     string   // IP address or path of a socket
	places   []string // whose penalties do not hold any longer than it
	channel  channel
	conn     *dialogue
	log      *slog.Logger
	messages int       // transactions begun
	failures int       // recipients refused
	last     time.Time // when a transaction ended
	timer    *time.Timer
	place    *list.Element // among the idle ones
}

// newID returns 16 random hexadecimal digits.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (m *MTA) newSession(l *link, id string, began time.Time, d *destination, h *host, sp *spot, addr string, ch channel, log *slog.Logger) *session {
	l.bind(m.hard)
	m.count.open.Add(1)
	m.count.sessions.Add(1)
	s := &session{mta: m, id: id, began: began, dest: d, host: h, spot: sp, addr: addr, channel: ch, conn: newDialogue(l), log: log}
	m.lanes.opened(s)
	return s
}

// usable reports whether the session may serve another message.
func (s *session) usable() bool {
	return s.conn.err == nil && s.messages < s.dest.limits.Messages && s.failures < s.dest.limits.Failures
}

// rest waits as long as there is to be between two messages.
func (s *session) rest(ctx context.Context) {
	if gap := s.dest.limits.Transaction; gap > 0 && s.messages > 0 {
		pause(ctx, time.Until(s.last.Add(gap)))
	}
}

// reset ends a transaction that was given up, keeping the session if the server
// agrees.
func (s *session) reset() {
	if s.conn.err != nil {
		return
	}
	if r, err := s.conn.command(s.mta.cfg.Timeouts.Command, "RSET"); err != nil || r.code != 250 {
		s.conn.close()
	}
}

// quit says goodbye and closes. It waits for the answer a short time only.
func (s *session) quit(reason string) { s.leave(reason, s.mta.cfg.Timeouts.Quit) }

// leave is quit, waiting no longer than patience.
func (s *session) leave(reason string, patience time.Duration) {
	if s.conn.err == nil {
		_, _ = s.conn.command(min(patience, s.mta.cfg.Timeouts.Quit), "QUIT")
	} else {
		reason = s.conn.err.Error()
	}
	if s.conn.err == nil && s.messages > 0 {
		// What was refused meanwhile was one more than this.
		for _, place := range s.places {
			s.mta.penalties.good(place)
		}
	}
	s.conn.close()
	s.spot.end()
	s.mta.lanes.ended(s)
	s.mta.idle.wake(s.dest.pool)
	s.mta.count.open.Add(-1)
	s.record(reason)
	s.log.Info("mta disconnected", "reason", reason, "messages", s.messages)
}

// offers returns the parameters of an extension that the server offers.
func (s *session) offers(keyword string) (params string, ok bool) {
	params, ok = s.conn.link.offers[keyword]
	return params, ok
}

// sizeLimit returns the largest message that the server takes, 0 if it did not
// say, or nonsense (RFC 1870).
func (s *session) sizeLimit() int64 {
	params, _ := s.offers("SIZE")
	word, _, _ := strings.Cut(params, " ")
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// security says how the session is secured, and who wanted what.
func (s *session) security() queue.Security {
	sec := s.host.policy.security()
	sec.Had = s.host.policy.had(s.channel).String()
	return sec
}

// relay names the server as logs do: "192.0.2.1 (mx.example.org)".
func (s *session) relay() string { return s.addr + " (" + s.host.name + ")" }

// source returns the address that we send from.
func (s *session) source() string {
	host, _, err := net.SplitHostPort(s.conn.link.conn.LocalAddr().String())
	if err != nil {
		return ""
	}
	return host
}
