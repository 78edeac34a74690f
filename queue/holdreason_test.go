package queue_test

import (
	"testing"

	"tabard/queue"
)

// Held mail is chosen by why it is held.
func TestHeldFor(t *testing.T) {
	t.Parallel()
	r, _ := deferred(t, "1@y.example", "2@z.example", "3@z.example")
	for rcpt, reason := range map[string]string{"1@y.example": "ask Ann", "2@z.example": "ask Bob", "3@z.example": ""} {
		s := queue.Steer{Op: queue.OpHold, Filter: queue.Filter{Recipient: []string{rcpt}}, Reason: reason, Limit: 1}
		if out, err := r.Steer(t.Context(), s); err != nil || out.Count != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	for text, want := range map[string]string{
		"ANN": "1@y.example", "hand*ask": "1@y.example 2@z.example", "by hand": "1@y.example 2@z.example 3@z.example", "Ann*hand": "", "damaged": "",
	} {
		if got := r.find(queue.Filter{HeldFor: []string{text}}); got != want {
			t.Errorf("%q chooses %q, want %q", text, got, want)
		}
	}
	if done, _, _ := steerAll(t, r, queue.OpRelease, queue.Filter{HeldFor: []string{"bob", "carl"}}); done != 1 {
		t.Errorf("released %d", done)
	}
	if got := r.find(queue.Filter{HeldFor: []string{"ask"}}); got != "1@y.example" {
		t.Errorf("then held: %q", got)
	}
}
