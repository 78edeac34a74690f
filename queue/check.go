package queue

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"tabard/internal/rpc"
)

// Bounds of a submission, which may come from a process that was taken over.
const (
	MaxRecipients = 10_000
	maxText       = 512
	maxORCPT      = 500 // RFC 3461 section 4.2
	maxEnvID      = 100 // RFC 3461 section 4.4
	// maxWish is more than nine digits of seconds, twice: RFC 4865 and RFC 2852 have no more.
	maxWish = 70 * 365 * 24 * time.Hour
)

// check refuses what would break a log line, a header or the schedule.
func (s *Submission) check() error {
	if n := len(s.Recipients); n == 0 || n > MaxRecipients {
		return fmt.Errorf("%w: %d recipients, want 1 to %d", rpc.ErrInvalid, n, MaxRecipients)
	}
	return s.checkAll()
}

// checkAll is check for any number of recipients.
func (s *Submission) checkAll() error {
	if len(s.Recipients) == 0 {
		return fmt.Errorf("%w: no recipients", rpc.ErrInvalid)
	}
	m := &s.Message
	if m.ID < 0 {
		return fmt.Errorf("%w: message id", rpc.ErrInvalid)
	}
	if m.Ret != "" && m.Ret != "FULL" && m.Ret != "HDRS" {
		return fmt.Errorf("%w: RET %.20q", rpc.ErrInvalid, m.Ret)
	}
	if m.Priority < MinPriority || m.Priority > MaxPriority {
		return fmt.Errorf("%w: priority %d", rpc.ErrInvalid, m.Priority)
	}
	if far := time.Now().Add(maxWish); m.Release.After(far) || m.DeliverBy.Time.After(far) {
		return fmt.Errorf("%w: to be released at %v and delivered by %v, which is too far away", rpc.ErrInvalid, m.Release, m.DeliverBy.Time)
	}
	err := checkTexts([]text{
		{"sender", m.Sender, maxText}, {"ENVID", m.EnvID, maxEnvID}, {"session", m.Session, maxText},
		{"user", m.User, maxText}, {"helo", m.Helo, maxText}, {"remote", m.Remote, maxText},
	})
	for i := range s.Recipients {
		if err == nil {
			err = s.Recipients[i].check()
		}
	}
	return err
}

func (e *Envelope) check() error {
	if e.Address == "" {
		return fmt.Errorf("%w: empty recipient", rpc.ErrInvalid)
	}
	if !validNotify(e.Notify) {
		return fmt.Errorf("%w: NOTIFY %.40q", rpc.ErrInvalid, e.Notify)
	}
	return checkTexts([]text{
		{"address", e.Address, maxText}, {"recipient", e.Recipient, maxText}, {"ORCPT", e.ORCPT, maxORCPT},
		{"action", e.Action, maxText}, {"user", e.User, maxText},
	})
}

type text struct {
	name, value string
	max         int
}

func checkTexts(texts []text) error {
	for _, t := range texts {
		if len(t.value) > t.max || !oneLine(t.value) {
			return fmt.Errorf("%w: %s %.80q", rpc.ErrInvalid, t.name, t.value)
		}
	}
	return nil
}

// oneLine reports whether s is UTF-8 without control characters.
func oneLine(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

// validNotify reports whether s is a NOTIFY value (RFC 3461 section 4.1).
func validNotify(s string) bool {
	if s == "" || s == "NEVER" {
		return true
	}
	seen := make(map[string]bool, 3)
	for word := range strings.SplitSeq(s, ",") {
		if seen[word] || word != "SUCCESS" && word != "FAILURE" && word != "DELAY" {
			return false
		}
		seen[word] = true
	}
	return true
}

// wants reports whether the sender asked to be told of event: SUCCESS, FAILURE
// or DELAY. Without NOTIFY it is told of failures and delays.
func (e *Envelope) wants(event string) bool {
	if e.Notify == "" {
		return event != "SUCCESS"
	}
	for word := range strings.SplitSeq(e.Notify, ",") {
		if word == event {
			return true
		}
	}
	return false
}
