package queue_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/queue"
)

// A queue whose message lost its text, or a part of it, while nothing ran starts all
// the same. The message stays, held, the log and the listing say why, and with its text
// back it goes on.
func TestDamagedBodyAtStart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		size  int
		spoil func(t *testing.T, r *rig, file string) error
	}{
		"missing": {200_000, func(_ *testing.T, _ *rig, file string) error { return os.Remove(file) }},
		"cut":     {200_000, func(_ *testing.T, _ *rig, file string) error { return os.Truncate(file, 150_000) }},
		"empty":   {200_000, func(_ *testing.T, _ *rig, file string) error { return os.Truncate(file, 0) }},
		"longer":  {200_000, func(_ *testing.T, _ *rig, file string) error { return os.Truncate(file, 200_001) }},
		"changed": {200_000, func(t *testing.T, _ *rig, file string) error { return overwrite(t, file, 100_000) }},
		"column": {1000, func(_ *testing.T, r *rig, _ string) error {
			r.edit("UPDATE messages SET body = CAST('X' || substr(body, 2) AS BLOB)")
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, queue.Options{})
			if err := stream(t, r, message("a@x.example", "b@y.example", "c@z.example"), tt.size); err != nil {
				t.Fatal(err)
			}
			r.stop()
			file, good := "", []byte(nil)
			if names := bodyFiles(t, r.path); len(names) == 1 {
				file = filepath.Join(filepath.Dir(r.path), "messages", names[0])
				var err error
				if good, err = os.ReadFile(file); err != nil {
					t.Fatal(err)
				}
			}
			if err := tt.spoil(t, r, file); err != nil {
				t.Fatal(err)
			}
			r = r.reopen(queue.Options{})
			w := r.relayer()
			end := takesNothing(t, w)
			eventually(t, "held", func() bool {
				l := r.list()
				return len(l) == 2 && l[0].Envelope.Held && l[1].Envelope.Held
			})
			end()
			l := r.list()[0]
			if s, err := r.Show(t.Context(), l.Envelope.ID.Message, -1, 100); err != nil || s.Fault == "" || len(s.Body) > 0 {
				t.Errorf("shown as %+v, %v", s, err)
			}
			if l.Envelope.HeldFor != "its body is damaged" || !strings.HasPrefix(l.Envelope.LastError, "held: ") {
				t.Errorf("listed as %+v", l)
			}
			if log := r.log.String(); !strings.Contains(log, `level=ERROR msg="message body is damaged: held" message=`+l.Envelope.ID.Message.String()) {
				t.Errorf("log: %s", log)
			}
			if s := r.stats(); s.Messages != 1 || s.Bounced != 0 {
				t.Errorf("%+v", s)
			}
			if file == "" {
				r.stop()
				r.edit("UPDATE messages SET body = CAST('0' || substr(body, 2) AS BLOB)")
				r = r.reopen(queue.Options{})
				w = r.relayer()
			} else if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, "made due", func() bool {
				n, busy, _ := steerAll(t, r, queue.OpRetry, queue.Filter{})
				return n == 2 && busy == 0
			})
			for range 2 {
				j := takeOne(t, w)
				if size, sum := readBody(t, w, j); size != int64(tt.size) || sum != wantSum(tt.size) {
					t.Errorf("body of %d bytes", size)
				}
				done(t, w, j, queue.Result{Outcome: queue.Delivered})
			}
		})
	}
}

// overwrite changes one byte of a file.
func overwrite(t *testing.T, file string, at int64) error {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("X"), at)
	return err
}
