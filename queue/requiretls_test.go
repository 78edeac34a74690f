package queue_test

import (
	"path/filepath"
	"testing"

	"tabard/queue"
)

// What a message wants of TLS survives a restart, over the wire too.
func TestTLSWishSurvivesReopening(t *testing.T) {
	for _, want := range []struct{ require, optional bool }{{}, {require: true}, {optional: true}} {
		l := &local{}
		r := open(t, filepath.Join(t.TempDir(), "q.db"), queue.Options{}, l)
		s := message("a@x.example", "b@y.example")
		s.Message.RequireTLS, s.Message.TLSOptional = want.require, want.optional
		c, _, _ := r.client(t)
		if err := c.Enqueue(t.Context(), s, []byte(text)); err != nil {
			t.Fatal(err)
		}
		r.stop()
		r = open(t, r.path, queue.Options{}, l)
		w, _, _ := r.remoteRelay(t)
		if m := takeOne(t, w).Message; m.RequireTLS != want.require || m.TLSOptional != want.optional {
			t.Errorf("want %+v, got %+v", want, m)
		}
	}
}

// RFC 8689 section 5: the report needs what the message needed, and does not
// bring its body back.
func TestBounceOfRequireTLS(t *testing.T) {
	s := message("a@x.example", "b@y.example")
	s.Message.RequireTLS, s.Message.Ret = true, "FULL"
	j := bounced(t, s, text, queue.Result{Outcome: queue.Failed, Enhanced: "5.7.30", Text: "the server does not offer REQUIRETLS"})
	if !j.Message.RequireTLS || j.Message.Sender != "" {
		t.Errorf("message: %+v", j.Message)
	}
	r := parseReport(t, j.Body)
	if r.original != "From: a@x.example\r\nSubject: hello\r\n" || r.types[2] != "text/rfc822-headers" {
		t.Errorf("%q %q", r.types, r.original)
	}
	if got := r.rcpts[0].Get("Status"); got != "5.7.30" {
		t.Errorf("status %s", got)
	}
}
