package queue

import "time"

// PastAttempt is what came of one attempt at an envelope that waits.
type PastAttempt struct {
	ID     EnvelopeID `json:"envelope"`
	Number int        `json:"number"` // from 1
	At     time.Time  `json:"at"`     // when its result was known
	Remote string     `json:"remote"` // host that said so; empty: our own word
	Result string     `json:"result"` // one line
	Next   time.Time  `json:"next"`   // when it was to be tried again
}

// KeptAttempts is how many attempts are known of an envelope: the last ones.
const KeptAttempts = 20
