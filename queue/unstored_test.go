package queue_test

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tabard/internal/logging/logtest"
	"tabard/queue"
	"tabard/queue/sqlite"
)

// A full disk does not fill the log, too: there is one line a minute, however many results
// wait to be stored.
func TestUnstoredResultsAreToldOfOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	synctest.Test(t, func(t *testing.T) {
		store, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		log := &logtest.Buffer{}
		f := &failing{Store: store}
		r := openOn(t, f, queue.Options{Logger: log.Logger()}, &local{})
		defer r.stop()
		r.enqueue(message("a@x.example", "1@x.example", "2@y.example", "3@z.example"), text)
		w := r.relayer()
		var jobs []queue.Job
		for range 3 {
			jobs = append(jobs, takeOne(t, w))
		}
		f.fail.Store(true)
		for _, j := range jobs {
			_ = w.Done(t.Context(), results(j, queue.Result{Outcome: queue.Delivered}))
		}
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "queue result not stored"); n != 2 || !strings.Contains(log.String(), "results=3") {
			t.Errorf("%d times:\n%s", n, log)
		}
		f.fail.Store(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "queue results stored that had to wait"); n != 1 || r.stats().Messages != 0 {
			t.Errorf("%d times:\n%s", n, log)
		}
	})
}
