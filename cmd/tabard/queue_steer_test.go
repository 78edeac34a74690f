package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"tabard/lookup"
	"tabard/queue"
	queuesqlite "tabard/queue/sqlite"
)

// noRules is a lookup that knows one action.
type noRules struct{ lookup.Local }

func (noRules) Actions(context.Context) ([]lookup.ActionInfo, error) {
	return []lookup.ActionInfo{{Name: "out", Relay: true}}, nil
}

// waiting is a queue with a message for each recipient, in this process.
func waiting(t *testing.T, rcpts ...string) *queue.Queue {
	t.Helper()
	store, err := queuesqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	q, err := queue.New(t.Context(), store, noRules{}, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	for _, r := range rcpts {
		s := queue.Submission{Message: queue.Message{Sender: "a@x.example"}, Recipients: []queue.Envelope{{Address: r, Recipient: r, Action: "out", Relay: true}}}
		if err := q.Enqueue(t.Context(), s, []byte("text\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	return q
}

// steerWords runs the words of a subcommand on a queue.
func steerWords(t *testing.T, q queue.Admin, st *steering, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, fault strings.Builder
	cmd := &cobra.Command{RunE: func(cmd *cobra.Command, args []string) error {
		f, err := st.what.filter(time.Now())
		if err != nil {
			return err
		}
		return (&globals{}).steer(cmd.Context(), cmd, q, st, f, args)
	}, SilenceErrors: true, SilenceUsage: true}
	st.add(cmd)
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&fault)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), fault.String(), err
}

func TestSteerCommand(t *testing.T) {
	t.Parallel()
	q := waiting(t, "1@y.example", "2@y.example", "3@z.example")
	hold := func() *steering { return &steering{s: queue.Steer{Op: queue.OpHold}, done: "held"} }
	out, _, err := steerWords(t, q, hold(), "--domain", "y.example", "--dry-run")
	if err != nil || strings.Count(out, "@y.example") != 2 || !strings.HasSuffix(out, "2 envelopes would be held\n") {
		t.Errorf("dry run: %s, %v", out, err)
	}
	if out, _, err = steerWords(t, q, hold(), "--domain", "y.example"); out != "2 envelopes held\n" || err != nil {
		t.Errorf("hold: %s, %v", out, err)
	}
	page, err := q.Find(t.Context(), queue.Filter{}, queue.EnvelopeID{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	first := page.List[0].Envelope.ID
	out, faults, err := steerWords(t, q, hold(), first.String(), "0000000000000001", page.List[2].Envelope.ID.Message.String())
	if out != "1 envelopes held\n" || exitCode(err) != exDataErr || faults != first.String()+": held by hand\n0000000000000001: not in the queue\n" {
		t.Errorf("by id: %s, %s, %v", out, faults, err)
	}
	// That something was held before is no failure, unless it was named.
	if out, faults, err = steerWords(t, q, hold(), "--all"); out != "0 envelopes held\n" || err != nil || strings.Count(faults, "\n") != 1 {
		t.Errorf("again: %s, %s, %v", out, faults, err)
	}
	if _, _, err = steerWords(t, q, hold(), first.String()); exitCode(err) != exTempFail {
		t.Errorf("again by id: %v", err)
	}
	if _, _, err = steerWords(t, q, hold(), "--state", "lost"); exitCode(err) != exUsage {
		t.Errorf("bad state: %v", err)
	}
	if out, _, err = steerWords(t, q, &steering{s: queue.Steer{Op: queue.OpRemove}, done: "removed"}, "--sender", "x.example"); out != "3 envelopes removed\n" || err != nil {
		t.Errorf("rm: %s, %v", out, err)
	}
}

func TestListing(t *testing.T) {
	t.Parallel()
	q := waiting(t, "1@y.example", "2@y.example", "3@z.example")
	for _, tt := range []struct {
		json  bool
		limit int
		lines int
	}{{false, 0, 4}, {false, 2, 3}, {true, 0, 0}} {
		var out strings.Builder
		if err := (&globals{json: tt.json}).printListing(t.Context(), &out, q, queue.Filter{}, tt.limit); err != nil {
			t.Fatal(err)
		}
		if tt.json {
			var all []queue.Listed
			if err := json.Unmarshal([]byte(out.String()), &all); err != nil || len(all) != 3 || all[2].Envelope.Address != "3@z.example" {
				t.Errorf("%s: %v", out.String(), err)
			}
		} else if strings.Count(out.String(), "\n") != tt.lines {
			t.Errorf("%s", out.String())
		}
	}
	cmd, out := printing()
	if err := (&globals{}).printTally(t.Context(), cmd, q, queue.Filter{}, []string{"domain", "error"}, 0); err != nil || !strings.Contains(out.String(), "2          0s      y.example  -\n") {
		t.Errorf("%s, %v", out, err)
	}
	if err := (&globals{}).printTally(t.Context(), cmd, q, queue.Filter{}, []string{"weight"}, 0); exitCode(err) != exUsage {
		t.Errorf("bad field: %v", err)
	}
}

// What is a hold of all that comes, and what is about envelopes.
func TestStandingHold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args     string
		standing bool
		bad      bool
	}{
		{"", true, false}, {"--sender a --destination b --rule c", true, false}, {"--sender a --present", false, false},
		{"--error full", false, false}, {"0000000000000001", false, false}, {"--all", false, false},
		{"--sender a --error full", false, true}, {"--rule out --present", false, true}, {"--destination b 0000000000000001", false, true},
		{"--sender a --error full --present", false, false},
	} {
		h := &holding{}
		var standing bool
		cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true, RunE: func(cmd *cobra.Command, args []string) (err error) {
			_, standing, err = h.standing(cmd, args)
			return err
		}}
		h.add(cmd)
		h.addFlags(cmd)
		cmd.SetArgs(strings.Fields(tt.args))
		if err := cmd.Execute(); standing != tt.standing || (err != nil) != tt.bad {
			t.Errorf("%q: %t, %v", tt.args, standing, err)
		}
	}
}

func TestFilterFlags(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := filterFlags{older: "2d", newer: "1h", attempts: "3-", states: []string{"held"}}
	got, err := f.filter(now)
	if err != nil || !got.Before.Equal(now.Add(-48*time.Hour)) || !got.Since.Equal(now.Add(-time.Hour)) || *got.Attempts != (queue.Range{Min: 3, Max: -1}) || got.States[0] != queue.StateHeld {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]queue.Range{"0": {}, "2-5": {Min: 2, Max: 5}} {
		if r, ok := parseRange(text); !ok || r != want {
			t.Errorf("%s: %v", text, r)
		}
	}
	for _, bad := range []filterFlags{{older: "2"}, {newer: "yesterday"}, {attempts: "5-2"}, {attempts: "-2"}, {attempts: "x"}} {
		if _, err := bad.filter(now); exitCode(err) != exUsage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestMailqLine(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_000_000, 0)
	l := queue.Listed{Sender: "a@x.example", Remote: "::ffff:192.0.2.1", Login: "ann", LastTry: at.Add(time.Minute), Envelope: queue.Envelope{
		ID: queue.EnvelopeID{Message: 0x1a22274ce9c1032f, N: 3}, Address: "to@y.example", Recipient: "list@z.example", Relay: true,
		Created: at, Expires: at.Add(time.Hour), Next: at.Add(10 * time.Minute), Attempts: 2, LastError: "450 a|b",
	}}
	for _, tt := range []struct {
		change func()
		want   string
	}{
		{func() {}, "1a22274ce9c1032f.3|inet4|mta|auth|a@x.example|list@z.example|to@y.example|1000000|1003600|1000060|2|pending|300|450 a?b"},
		{func() { l.InFlight = true }, "1a22274ce9c1032f.3|inet4|mta|auth|a@x.example|list@z.example|to@y.example|1000000|1003600|1000060|2|inflight|0|450 a?b"},
		{func() {
			l = queue.Listed{Remote: "2001:db8::1", Envelope: queue.Envelope{ID: l.Envelope.ID, Address: "u@y.example", Recipient: "u@y.example", Created: at, Expires: at, Next: at, Held: true, HeldFor: "held by hand"}}
		}, "1a22274ce9c1032f.3|inet6|mda|bounce,suspend||u@y.example|u@y.example|1000000|1000000|1000000|0|pending|0|held by hand"},
	} {
		tt.change()
		if got := mailqLine(&l, at.Add(5*time.Minute)); got != tt.want {
			t.Errorf("%s\nwant %s", got, tt.want)
		}
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	q := waiting(t)
	s := queue.Submission{Message: queue.Message{Sender: "a@x.example"}, Recipients: []queue.Envelope{{Address: "1@y.example"}, {Address: "2@y.example"}}}
	header := "Subject: " + strings.Repeat("long ", 20_000) + "\r\nX: y\r\n"
	w, err := q.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(header + "\r\nbody\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	page, err := q.Find(t.Context(), queue.Filter{}, queue.EnvelopeID{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	id := page.List[0].Envelope.ID.Message
	for _, headers := range []bool{true, false} {
		want := header
		if !headers {
			want += "\r\nbody\r\n"
		}
		var out strings.Builder
		if err := printBody(t.Context(), &out, q, id, headers); err != nil || out.String() != want {
			t.Errorf("headers %t: %d bytes, %v", headers, out.Len(), err)
		}
	}
	cmd, out := printing()
	if err := (&globals{}).show(t.Context(), cmd, q, id, 1, 10); err != nil || strings.Contains(out.String(), "1@y.example") || !strings.Contains(out.String(), "2@y.example") || !strings.Contains(out.String(), "\n\nSubject: l\n[the rest") {
		t.Errorf("%s, %v", out, err)
	}
	if err := (&globals{}).show(t.Context(), cmd, q, id, 7, 10); exitCode(err) != exDataErr {
		t.Errorf("no such envelope: %v", err)
	}
	if err := printBody(t.Context(), out, q, 1, true); exitCode(err) != exDataErr {
		t.Errorf("no such message: %v", err)
	}
}
