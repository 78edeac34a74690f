package smtpd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"tabard/lookup"
)

// Recipients that a client sent at once are asked for at once: each question
// here is answered only when all of them were put.
func TestPipelinedRecipients(t *testing.T) {
	const n = 20
	var all sync.WaitGroup
	all.Add(n)
	var mu sync.Mutex
	asked := make(map[string]int)
	r := start(t, onLookup(func(f *fakeLookup) {
		f.recipient = func(req lookup.RecipientRequest) (lookup.RecipientReply, error) {
			mu.Lock()
			asked[req.Recipient]++
			first := asked[req.Recipient] == 1
			mu.Unlock()
			if first {
				all.Done()
			}
			all.Wait()
			if strings.HasPrefix(req.Recipient, "r7@") {
				return lookup.RecipientReply{Code: 550, Enhanced: "5.1.1", Text: "Invalid recipient: <" + req.Recipient + ">"}, nil
			}
			return lookup.RecipientReply{Targets: []lookup.Target{{Action: "local", Address: req.Recipient, User: req.Recipient}}}, nil
		}
	}))
	c := r.hello()
	text := "MAIL FROM:<a@b.example>\r\n"
	for i := range n {
		text += fmt.Sprintf("rcpt to:<r%d@x.example> NOTIFY=NEVER\r\n", i)
	}
	c.write(text + "RCPT TO:<r0@x.example>\r\nDATA\r\n")
	c.expect("250")
	for i := range n {
		if i == 7 {
			c.expect("550 5.1.1 Invalid recipient: <r7@x.example>")
			continue
		}
		c.expect("250")
	}
	c.expect("250") // r0 again
	c.expect("354")
	c.do("x\r\n.", "250")
	if got := len(r.only().Recipients); got != n-1+1 {
		t.Errorf("%d envelopes, want %d", got, n)
	}
	for rcpt, times := range asked {
		if want := map[bool]int{true: 2, false: 1}[rcpt == "r0@x.example"]; times != want {
			t.Errorf("%s was asked for %d times", rcpt, times)
		}
	}
}

func TestPipelinedRcpts(t *testing.T) {
	tests := []struct {
		in    string
		limit int
		want  []string
	}{
		{"RCPT TO:<a@x>\r\nrcpt To:<b@x> NOTIFY=NEVER\r\nDATA\r\n", 9, []string{"a@x", "b@x"}},
		{"RCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\n", 2, []string{"a@x", "b@x"}},
		{"RCPT TO:<a@x>\r\nRCPT TO:<b@x>", 9, []string{"a@x"}},
		{"DATA\r\nRCPT TO:<a@x>\r\n", 9, nil},
		{"RCPT TO:<\"a b\"@x>\r\nRCPT TO:<b@x>\r\n", 9, nil},
		{"RCPT TO:<a@x\r\n", 9, nil},
		{"RCPT TO:<a@x>\r\n", 0, nil},
		{"RCPT TO:<a@x>\r\n", -1, nil},
		{"", 9, nil},
	}
	for _, tt := range tests {
		if got := pipelinedRcpts([]byte(tt.in), tt.limit); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

// What was asked ahead of its turn ends with the transaction.
func TestAheadIsDropped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &session{tx: &transaction{ahead: &ahead{cancel: cancel}}}
	s.Reset()
	if ctx.Err() == nil || s.tx != nil {
		t.Errorf("context: %v, transaction: %v", ctx.Err(), s.tx)
	}
}
