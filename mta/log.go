package mta

import (
	"strconv"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/queue"
)

// maxStat bounds the server's text in a log line, in bytes.
const maxStat = 500

// logDelivery writes the line that says what became of one envelope.
func (s *session) logDelivery(job *queue.Job, env queue.Envelope, r queue.Result) {
	s.log.Info("mta delivery", deliveryAttrs(job, env, r, s.source(), s.relay())...)
}

func deliveryAttrs(job *queue.Job, env queue.Envelope, r queue.Result, source, relay string) []any {
	rcpt := env.Recipient
	if rcpt == env.Address {
		rcpt = "-"
	}
	delay := time.Since(env.Created).Truncate(time.Second)
	if env.Created.IsZero() {
		delay = 0
	}
	return []any{
		"evpid", env.ID.String(), "from", "<" + job.Message.Sender + ">", "to", "<" + env.Address + ">",
		"rcpt", "<" + rcpt + ">", "source", source, "relay", relay, "delay", delay.String(),
		"result", r.Outcome.String(), "stat", stat(r),
		"tls", orDash(r.Security.Had), "wanted", orDash(r.Security.Wanted), "by", orDash(r.Security.By),
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return address.OneLine(s, 255)
}

// stat is the reply on one line: "250 2.0.0 accepted".
func stat(r queue.Result) string {
	var words []string
	if r.Code != 0 {
		words = append(words, strconv.Itoa(r.Code))
	}
	if r.Enhanced != "" {
		words = append(words, r.Enhanced)
	}
	return address.OneLine(strings.Join(append(words, r.Text), " "), maxStat)
}
