package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"tabard/queue"
)

// Wrong words are told from a server that is away by the exit code, whoever finds them.
func TestWrongWordsOfQueue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"ls --sort size --by state", "sort"},
		{"ls --state lost", "want one of [active due deferred held]"},
		{"ls --error=", "want one line"},
		{"redirect --all", "to-action"},
		{"redirect --all --to a@b.example --to-action out", "to-action"},
		{"show --max -1 0000000000000001", "--max"},
		{"show --body --headers 0000000000000001", "headers"},
		{"show ffffffffffffffff", "first of them 0 to 7"},
	} {
		var stdout, stderr strings.Builder
		code := execute(append([]string{"queue"}, strings.Fields(tt.args)...), nil, &stdout, &stderr)
		if code != exUsage || !strings.Contains(stderr.String(), tt.want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("queue %s: %d, %s", tt.args, code, stderr.String())
		}
	}
}

// The head of a listing stands over its columns.
func TestColumnsUnderTheirHead(t *testing.T) {
	t.Parallel()
	q := waiting(t, "somebody.with.a.long.name@y.example", "2@y.example")
	var out strings.Builder
	if err := (&globals{}).printListing(t.Context(), &out, q, queue.Filter{}, 0); err != nil {
		t.Fatal(err)
	}
	dry, _, err := steerWords(t, q, &steering{s: queue.Steer{Op: queue.OpHold}, done: "held"}, "--all", "--dry-run")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), dry} {
		lines := strings.Split(text, "\n")
		for _, column := range []string{"FROM", "TO", "ACTION", "LAST ERROR"} {
			at := strings.Index(lines[0], "  "+column)
			if at < 0 || len(lines) < 3 || lines[1][at:at+2] != "  " || lines[1][at+2] == ' ' {
				t.Errorf("%s\nis not in columns at %s", text, column)
				break
			}
		}
	}
}

// A program that asks for a dry run learns what it is about.
func TestDryRunForPrograms(t *testing.T) {
	t.Parallel()
	q := waiting(t, "1@y.example", "2@z.example")
	for _, tt := range []struct {
		dry  bool
		want int
	}{{true, 1}, {false, 0}} {
		st := &steering{s: queue.Steer{Op: queue.OpHold, DryRun: tt.dry}, done: "held"}
		cmd, out := printing()
		if err := (&globals{json: true}).steer(t.Context(), cmd, q, st, queue.Filter{Domain: []string{"z.example"}}, nil); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Changed   int
			Envelopes []string
		}
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got.Changed != 1 || len(got.Envelopes) != tt.want {
			t.Errorf("dry run %t: %s, %v", tt.dry, out.String(), err)
		}
	}
}

// What is shown of a message says where each envelope is, and what is left out and why.
func TestShownText(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(n int, next time.Time) queue.Envelope {
		return queue.Envelope{ID: queue.EnvelopeID{Message: 1, N: n}, Next: next}
	}
	held := at(3, now)
	held.Held = true
	s := queue.Shown{
		Message: queue.Message{ID: 1}, Envelopes: []queue.Envelope{at(0, now.Add(time.Hour)), at(1, now.Add(-time.Hour)), at(2, now), held},
		Active: []queue.EnvelopeID{{Message: 1, N: 2}}, More: true, Truncated: true, Fault: "it is damaged",
	}
	var out strings.Builder
	if err := printShown(&out, &s); err != nil {
		t.Fatal(err)
	}
	for n, state := range []queue.State{queue.StateDeferred, queue.StateDue, queue.StateActive, queue.StateHeld} {
		if line := fmt.Sprintf(`(?m)^envelope: 0000000000000001\.%d .* state=%s `, n, state); !regexp.MustCompile(line).MatchString(out.String()) {
			t.Errorf("%s\nlacks %s", out.String(), line)
		}
	}
	for _, want := range []string{"[not all envelopes and attempts are shown: ", "\n[its text is not shown: it is damaged]\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nlacks %s", out.String(), want)
		}
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// Output that cannot be written is not taken for a server that is away.
func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	q := waiting(t, "1@y.example")
	cmd, _ := printing()
	cmd.SetOut(fullDisk{})
	st := func() *steering { return &steering{s: queue.Steer{Op: queue.OpRetry}, done: "made due"} }
	for name, err := range map[string]error{
		"ls":           (&globals{}).printListing(t.Context(), fullDisk{}, q, queue.Filter{}, 0),
		"ls --json":    (&globals{json: true}).printListing(t.Context(), fullDisk{}, q, queue.Filter{}, 0),
		"mailq":        printMailq(t.Context(), fullDisk{}, q, queue.Filter{}, 0),
		"ls --by":      (&globals{}).printTally(t.Context(), cmd, q, queue.Filter{}, []string{"state"}, 0),
		"retry":        (&globals{}).steer(t.Context(), cmd, q, st(), queue.Filter{}, nil),
		"retry --json": (&globals{json: true}).steer(t.Context(), cmd, q, st(), queue.Filter{}, nil),
	} {
		if exitCode(err) != exIOErr {
			t.Errorf("%s: %v has the code %d", name, err, exitCode(err))
		}
	}
}
