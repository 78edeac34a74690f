package mta

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// wishes are the parameters of MAIL by which the next server learns what the sender
// asked of the schedule: MT-PRIORITY (RFC 6710) and what is left of the time of BY (RFC
// 2852). Mail that was held until a time (RFC 4865) is released by now.
func (t *transaction) wishes(now time.Time) string {
	m, words := &t.job.Message, ""
	if _, ok := t.offers("MT-PRIORITY"); ok && m.Priority != 0 {
		words += " MT-PRIORITY=" + strconv.Itoa(m.Priority)
	}
	by := &m.DeliverBy
	if !t.keepsTime() {
		return words
	}
	left, mode := seconds(by.Time.Sub(now)), "R"
	switch {
	case by.Notify:
		mode = "N"
	case left < 1: // since fits has asked
		left = 1
	}
	if by.Trace {
		mode += "T"
	}
	return words + " BY=" + strconv.FormatInt(left, 10) + ";" + mode
}

// keepsTime reports whether the server takes over the time of a message.
func (t *transaction) keepsTime() bool {
	_, ok := t.offers("DELIVERBY")
	return ok && !t.job.Message.DeliverBy.Time.IsZero()
}

// inTime refuses to relay a message that must be there by a time to a server that may
// deliver it later (RFC 2852 section 4.1.4). By LMTP it is there.
func (t *transaction) inTime(now time.Time) *failure {
	by := &t.job.Message.DeliverBy
	if by.Time.IsZero() || by.Notify || t.host.policy.lmtp() {
		return nil
	}
	params, ok := t.offers("DELIVERBY")
	if !ok {
		return t.tooLate("the server does not support DELIVERBY: it would not return a message that is late")
	}
	word, _, _ := strings.Cut(params, " ")
	least, err := strconv.ParseInt(word, 10, 64)
	if err != nil || least < 1 {
		least = 1
	}
	if left := seconds(by.Time.Sub(now)); left < least {
		return t.tooLate(fmt.Sprintf("%d seconds are left, and the server wants %d at least", left, least))
	}
	return nil
}

func (t *transaction) tooLate(why string) *failure {
	f := failed("5.4.7", why)
	f.remote = t.host.name
	return f
}

// seconds counts whole seconds, down: what is passed on is never more than is left.
func seconds(d time.Duration) int64 {
	const most = 999_999_999 // nine digits
	n := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		n--
	}
	return max(-most, min(n, most))
}
