package queue_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tabard/queue"
)

// jobs takes n jobs, in order of their domain.
func jobs(t *testing.T, w queue.Worker, n int) []queue.Job {
	t.Helper()
	var all []queue.Job
	for range n {
		all = append(all, takeOne(t, w))
	}
	slices.SortFunc(all, func(a, b queue.Job) int { return strings.Compare(a.Domain, b.Domain) })
	return all
}

// Recipients that fail one after the other share a report, if it is within a
// moment. What is still being tried after that gets one of its own.
func TestReportGathers(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{}, &local{})
		r.enqueue(message("a@x.example", "1@a.example", "2@b.example", "3@c.example", "4@d.example", "5@e.example"), text)
		w, release := r.RelayWorker()
		defer release()
		js := jobs(t, w, 5)
		done(t, w, js[0], failed)
		time.Sleep(queue.DefaultGather / 2)
		done(t, w, js[1], queue.Result{Outcome: queue.Delivered})
		done(t, w, js[2], queue.Result{Outcome: queue.Deferred, Text: "later"})
		done(t, w, js[3], failed)
		begin := time.Now()
		got := recipients(t, takeOne(t, w))
		if waited := time.Since(begin); waited != queue.DefaultGather/2 || got != "rfc822; 1@a.example rfc822; 4@d.example" {
			t.Errorf("after %v: %s", waited, got)
		}
		done(t, w, js[4], failed)
		begin = time.Now()
		if got := recipients(t, takeOne(t, w)); got != "rfc822; 5@e.example" || time.Since(begin) != 0 {
			t.Errorf("after %v: %s", time.Since(begin), got)
		}
		r.stop()
	})
}

// recipients are those that a report is about.
func recipients(t *testing.T, j queue.Job) string {
	t.Helper()
	var all []string
	for _, h := range parseReport(t, j.Body).rcpts {
		all = append(all, h.Get("Final-Recipient"))
	}
	return strings.Join(all, " ")
}

// When nothing of a message is being tried any more, its report waits for nothing.
func TestReportAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{}, &local{})
		r.enqueue(message("a@x.example", "1@a.example", "2@b.example", "3@c.example"), text)
		w, release := r.RelayWorker()
		defer release()
		js := jobs(t, w, 3)
		begin := time.Now()
		done(t, w, js[0], failed)
		done(t, w, js[1], failed)
		done(t, w, js[2], queue.Result{Outcome: queue.Delivered})
		if got := recipients(t, takeOne(t, w)); got != "rfc822; 1@a.example rfc822; 2@b.example" || time.Since(begin) != 0 {
			t.Errorf("after %v: %s", time.Since(begin), got)
		}
		r.stop()
	})
}

// A list is told to have been expanded, and its members fail only.
func TestExpanded(t *testing.T) {
	for _, tt := range []struct{ notify, members, status string }{
		{"SUCCESS", "NEVER", "expanded"}, {"SUCCESS,FAILURE", "FAILURE", "expanded"}, {"DELAY,SUCCESS,FAILURE", "DELAY,FAILURE", "expanded"},
		{"FAILURE", "FAILURE", ""}, {"NEVER", "NEVER", ""}, {"", "", ""},
	} {
		r := start(t, queue.Options{Gather: time.Millisecond})
		s := message("a@x.example", "1@y.example", "2@y.example")
		for i := range s.Recipients {
			s.Recipients[i].Recipient, s.Recipients[i].ORCPT, s.Recipients[i].Notify = "list@x.example", "rfc822;list@x.example", tt.notify
		}
		r.enqueue(s, text)
		w := r.relayer()
		j := takeOne(t, w)
		if tt.status != "" {
			report := takeOne(t, w)
			if j.Message.Sender == "" {
				j, report = report, j
			}
			rep := parseReport(t, report.Body)
			if h := rep.rcpts[0]; h.Get("Action") != tt.status || h.Get("Status") != "2.0.0" || h.Get("Final-Recipient") != "rfc822; list@x.example" ||
				h.Get("Original-Recipient") != "rfc822; list@x.example" || !strings.Contains(rep.text, "members") {
				t.Errorf("NOTIFY=%s: %v\n%s", tt.notify, h, rep.text)
			}
			done(t, w, report, queue.Result{Outcome: queue.Delivered})
		}
		if addresses(j) != "1@y.example 2@y.example" || j.Envelopes[0].Notify != tt.members || j.Envelopes[1].Notify != tt.members {
			t.Errorf("NOTIFY=%s: %+v", tt.notify, j.Envelopes)
		}
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
		want := int64(2) // members, and the recipient of the report: but not what it is about
		if tt.status != "" {
			want = 3
		}
		if st := r.stats(); st.Messages != 0 || st.Envelopes != 0 || st.Enqueued != want {
			t.Errorf("NOTIFY=%s: %+v", tt.notify, st)
		}
		r.stop()
	}
}

// One address that became one other is not expanded, nor are two that were named.
func TestNotExpanded(t *testing.T) {
	r := start(t, queue.Options{})
	s := message("a@x.example", "1@y.example", "2@y.example")
	s.Recipients[0].Recipient = "alias@x.example"
	for i := range s.Recipients {
		s.Recipients[i].Notify = "SUCCESS"
	}
	r.enqueue(s, text)
	w := r.relayer()
	for _, j := range jobs(t, w, 2) {
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
	}
	rep := parseReport(t, takeOne(t, w).Body)
	if len(rep.rcpts) != 2 || rep.rcpts[0].Get("Action") != "relayed" || !strings.Contains(rep.text, "alias@x.example") {
		t.Errorf("report: %+v", rep)
	}
}

// The report of an expansion is owed from the moment that the message was taken.
func TestExpandedSurvivesReopening(t *testing.T) {
	l := &local{down: errDown}
	r := open(t, filepath.Join(t.TempDir(), "q.db"), queue.Options{}, l)
	s := message("a@x.example", "1@y.example", "2@y.example")
	for i := range s.Recipients {
		s.Recipients[i].Recipient, s.Recipients[i].Notify = "list@x.example", "SUCCESS"
	}
	r.enqueue(s, text)
	r.stop()
	l.set(func(l *local) { l.down = nil })
	r = open(t, r.path, queue.Options{}, l)
	r.retryNow(0, -1)
	w := r.relayer()
	reports := 0
	for range 2 {
		if j := takeOne(t, w); j.Message.Sender == "" {
			reports++
		}
	}
	if reports != 1 {
		t.Errorf("%d reports", reports)
	}
}

// The report of what expired while nothing ran says what the last attempt said.
func TestExpiredTellsLastReply(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{TTL: time.Hour}, &local{})
		r.enqueue(message("a@x.example", "b@y.example"), text)
		w, release := r.RelayWorker()
		done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Code: 451, Enhanced: "4.2.2", Text: "4.2.2 over\nquota", Remote: "mx.y.example"})
		at := time.Now()
		release()
		r.stop()
		time.Sleep(2 * time.Hour)
		r = open(t, r.path, queue.Options{}, r.local)
		w, release = r.RelayWorker()
		defer release()
		rep := parseReport(t, takeOne(t, w).Body)
		got := rep.rcpts[0]
		want := map[string][]string{
			"Final-Recipient": {"rfc822; b@y.example"}, "Action": {"failed"}, "Status": {"4.4.7"}, "Remote-Mta": {"dns; mx.y.example"},
			"Diagnostic-Code": {"smtp; 451 4.2.2 over quota"}, "Last-Attempt-Date": {at.Format(time.RFC1123Z)},
		}
		if d := cmp.Diff(want, map[string][]string(got)); d != "" {
			t.Error(d)
		}
		for _, words := range []string{"as long as mail is tried", "mailbox is full", "over quota"} {
			if !strings.Contains(strings.Join(strings.Fields(rep.text), " "), words) {
				t.Errorf("no %q in\n%s", words, rep.text)
			}
		}
		r.stop()
	})
}

// Failures that nobody is told of are in the log, each with its reason.
func TestUntoldFailures(t *testing.T) {
	r := start(t, queue.Options{})
	bounce := message("", "1@y.example", "2@y.example")
	never := message("a@x.example", "3@y.example")
	never.Recipients[0].Notify = "NEVER"
	w := r.relayer()
	for _, s := range []queue.Submission{bounce, never} {
		r.enqueue(s, text)
		done(t, w, takeOne(t, w), failed)
	}
	if s := r.stats(); s.Messages != 0 || s.Failed != 3 {
		t.Errorf("stats: %+v", s)
	}
	for _, to := range []string{"1@y.example", "2@y.example", "3@y.example"} {
		why := `reason="a bounce is not bounced"`
		if strings.HasPrefix(to, "3") {
			why = `reason="the sender does not want to be told"`
		}
		found := false
		for line := range strings.SplitSeq(r.log.String(), "\n") {
			found = found || strings.Contains(line, `msg="queue drop"`) && strings.Contains(line, "to=<"+to+">") &&
				strings.Contains(line, why) && strings.Contains(line, "550 5.1.1")
		}
		if !found {
			t.Errorf("%s: log: %s", to, r.log)
		}
	}
}

// A report about very many is several.
func TestReportOfThousands(t *testing.T) {
	r := start(t, queue.Options{MaxActive: 20000})
	r.enqueue(message("a@x.example", numbered("%d@y.example", 1500)...), text)
	w := r.relayer()
	reported := 0
	for reported < 1500 {
		for _, j := range take(t, w, 100) {
			if j.Message.Sender != "" {
				done(t, w, j, failed)
				continue
			}
			body := j.Body
			for offset := int64(0); j.Body == nil; {
				p, err := w.Body(context.Background(), j.Message.ID, offset, 64<<10)
				if err != nil {
					t.Fatal(err)
				}
				if len(p) == 0 {
					break
				}
				body, offset = append(body, p...), offset+int64(len(p))
			}
			n := len(parseReport(t, body).rcpts)
			if reported += n; n > 1000 {
				t.Errorf("%d in one report", n)
			}
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		}
	}
}
