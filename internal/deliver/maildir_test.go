package deliver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tabard/internal/logging/logtest"
	"tabard/lookup"
	"tabard/queue"
)

const onDisk = "Return-Path: <alice@a.example>\nDelivered-To: bob@b.example\n" +
	"Subject: hi\nX-Spam: no\n\nhello\n.dot\nFrom me\n"

func TestMaildirMakesEverything(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "b.example", "bob", "Maildir")
	a := testAgent(t, osFS{})
	wantStatus(t, a.try(t, testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, testBody)), queue.Delivered, "2.0.0", "Delivered")

	if got := onlyFile(t, dir); got != onDisk {
		t.Errorf("content %q\nwant    %q", got, onDisk)
	}
	name := files(t, dir)[0]
	if !regexp.MustCompile(`^new/\d{10}\.M\d{6}P\d+R[0-9a-f]{16}\.mx\.example$`).MatchString(name) {
		t.Errorf("name %q", name)
	}
	for path, mode := range map[string]os.FileMode{
		filepath.Join(root, "b.example"):        0o700 | os.ModeDir,
		filepath.Join(root, "b.example", "bob"): 0o700 | os.ModeDir,
		dir:                                     0o700 | os.ModeDir,
		filepath.Join(dir, "tmp"):               0o700 | os.ModeDir,
		filepath.Join(dir, "cur"):               0o700 | os.ModeDir,
		filepath.Join(dir, "new"):               0o700 | os.ModeDir,
		filepath.Join(dir, name):                0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
}

func TestMaildirOrder(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "u", "m")
	fsys := &faultFS{}
	a := testAgent(t, fsys)
	wantStatus(t, a.try(t, testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, testBody)), queue.Delivered, "2.0.0", "")

	var got []string
	for _, op := range fsys.ops {
		op = regexp.MustCompile(`/\d{10}\.M.*`).ReplaceAllString(op, "/NAME")
		verb, path, _ := strings.Cut(op, " ")
		if strings.HasPrefix(path, root) {
			got = append(got, verb+" "+strings.TrimPrefix(path, root))
		}
	}
	want := []string{
		"open /u/m/tmp/NAME", // fails: nothing is there
		"mkdir /u", "mkdir /u/m", "syncdir /u", "syncdir ",
		"mkdir /u/m/new", "mkdir /u/m/cur", "syncdir /u/m", "mkdir /u/m/tmp",
		"open /u/m/tmp/NAME", "write /u/m/tmp/NAME", "sync /u/m/tmp/NAME", "close /u/m/tmp/NAME",
		"rename /u/m/new/NAME", "syncdir /u/m/new",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestMaildirFaults(t *testing.T) {
	errOdd := errors.New("odd")
	for _, c := range []struct {
		op       string
		err      error
		outcome  queue.Outcome
		enhanced string
	}{
		{"open", syscall.EACCES, queue.Deferred, "4.3.5"},
		{"open", syscall.EROFS, queue.Deferred, "4.3.5"},
		{"open", syscall.ENAMETOOLONG, queue.Failed, "5.3.5"},
		{"open", syscall.EMFILE, queue.Deferred, "4.2.0"},
		{"mkdir", syscall.EACCES, queue.Deferred, "4.3.5"},
		{"mkdir", syscall.ENOSPC, queue.Deferred, "4.3.1"},
		{"write", syscall.ENOSPC, queue.Deferred, "4.3.1"},
		{"write", syscall.EDQUOT, queue.Deferred, "4.2.2"},
		{"write", syscall.EIO, queue.Deferred, "4.3.0"},
		{"write", errHalf, queue.Deferred, "4.2.0"},
		{"sync", syscall.EIO, queue.Deferred, "4.3.0"},
		{"sync", syscall.EDQUOT, queue.Deferred, "4.2.2"},
		{"close", syscall.EIO, queue.Deferred, "4.3.0"},
		{"rename", syscall.EACCES, queue.Deferred, "4.3.5"},
		{"rename", syscall.ENOSPC, queue.Deferred, "4.3.1"},
		{"rename", errOdd, queue.Deferred, "4.2.0"},
		{"syncdir", syscall.EIO, queue.Deferred, "4.3.0"},
	} {
		t.Run(fmt.Sprint(c.op, c.err), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "m")
			fsys := &faultFS{fail: func(op, path string) error {
				if op == c.op && strings.HasPrefix(path, dir) {
					return c.err
				}
				return nil
			}}
			a := testAgent(t, fsys)
			job := testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, testBody)
			wantStatus(t, a.try(t, job), c.outcome, c.enhanced, "maildir: ")
			if left := files(t, dir); len(left) != 0 {
				t.Errorf("left %q", left)
			}
			fsys.fail = nil
			wantStatus(t, a.try(t, job), queue.Delivered, "2.0.0", "")
		})
	}
}

// A failed sync of new alone must not leave the message there: it will come again.
func TestMaildirNewNotDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	fsys := &faultFS{fail: func(op, path string) error {
		if op == "syncdir" && path == filepath.Join(dir, "new") {
			return syscall.EIO
		}
		return nil
	}}
	st := testAgent(t, fsys).try(t, testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, testBody))
	wantStatus(t, st, queue.Deferred, "4.3.0", "sync "+dir+"/new")
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

func TestMaildirNewIsMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	a := testAgent(t, osFS{})
	if err := a.makeMaildir(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, a.try(t, testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, testBody)), queue.Delivered, "2.0.0", "")
	if got := onlyFile(t, dir); got != onDisk {
		t.Errorf("content %q", got)
	}
}

func TestMaildirBadPlaces(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "nowhere"), filepath.Join(root, "dangling")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "loop"), filepath.Join(root, "loop")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, enhanced, text string
		outcome              queue.Outcome
	}{
		{"Maildir", "5.3.5", `"Maildir" is not absolute`, queue.Failed},
		{"", "5.3.5", "not absolute", queue.Failed},
		{root + "/a/../../b", "5.3.5", ".. element", queue.Failed},
		{root + "/a\x00b", "5.3.5", "NUL", queue.Failed},
		{root + "/plain", "4.3.5", "not a directory", queue.Deferred},
		{root + "/plain/m", "4.3.5", "not a directory", queue.Deferred},
		{root + "/dangling", "4.3.5", "a symbolic link that leads nowhere", queue.Deferred},
		{root + "/dangling/m", "4.3.5", "a symbolic link that leads nowhere", queue.Deferred},
		{root + "/loop", "4.3.5", "symbolic links", queue.Deferred},
		{root + "/" + strings.Repeat("x", 300), "5.3.5", "name too long", queue.Failed},
	} {
		st := testAgent(t, osFS{}).try(t, testJob(1, lookup.Delivery{Method: "maildir", Path: c.path}, testBody))
		t.Run(c.path, func(t *testing.T) { wantStatus(t, st, c.outcome, c.enhanced, c.text) })
	}
}

func TestMaildirFolders(t *testing.T) {
	spam := "X-Spam: Yes\r\n\r\nbuy\r\n"
	for _, c := range []struct {
		name, ext, body, exists, want string
		junk                          bool
	}{
		{"tag with a folder", "lists", testBody, ".lists", ".lists/new", false},
		{"tag without one", "lists", testBody, "", "new", false},
		{"tag with dots", "a.b", testBody, ".a.b", ".a.b/new", false},
		{"tag that climbs", ".", testBody, "", "new", false},
		{"tag with a slash", "x/../../y", testBody, ".x", "new", false},
		{"spam", "", spam, "", ".Junk/new", true},
		{"spam flag", "", "A: b\r\nX-Spam-Flag: YES\r\n\r\nbuy\r\n", "", ".Junk/new", true},
		{"spam, no junk option", "", spam, "", "new", false},
		{"spam in the body only", "", "A: b\r\n\r\nX-Spam: Yes\r\n", "", "new", true},
		{"spam before tag", "lists", spam, ".lists", ".Junk/new", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "m")
			if c.exists != "" {
				if err := os.MkdirAll(filepath.Join(dir, c.exists), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			how := lookup.Delivery{Method: "maildir", Path: dir, Junk: c.junk, Env: []string{"USER=bob", "EXTENSION=" + c.ext}}
			wantStatus(t, testAgent(t, osFS{}).try(t, testJob(1, how, c.body)), queue.Delivered, "2.0.0", "")
			if got := files(t, dir); len(got) != 1 || filepath.Dir(got[0]) != c.want {
				t.Errorf("files %q; want one in %s", got, c.want)
			}
		})
	}
}

func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	log := &logtest.Buffer{}
	q := newFakeQueue()
	a := newAgent(q, Options{Hostname: "h", Logger: log.Logger()}.withDefaults(), osFS{})
	if err := a.makeMaildir(dir); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"dead": 37 * time.Hour, "alive": 35 * time.Hour} {
		path := filepath.Join(dir, "tmp", name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	rep := newReporter(q, a.log, 1, func(error) {})
	a.carryOut(t.Context(), t.Context(), testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, testBody), rep)
	if err := rep.close(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, filepath.Join(dir, "tmp")); !slices.Equal(got, []string{"alive"}) {
		t.Errorf("tmp holds %q", got)
	}
	if !strings.Contains(log.String(), "removed=1") {
		t.Errorf("log %q", log.String())
	}
}

func TestSweepsRemember(t *testing.T) {
	s, now := newSweeps(), time.Now()
	if !s.due("a", now) || s.due("a", now.Add(time.Hour)) || !s.due("a", now.Add(25*time.Hour)) {
		t.Error("wrong times")
	}
	for i := range 3 * sweepDirs {
		s.due(fmt.Sprint(i), now)
	}
	if len(s.last) > sweepDirs {
		t.Errorf("%d remembered", len(s.last))
	}
}

func TestFileHost(t *testing.T) {
	for in, want := range map[string]string{
		"mx.example": "mx.example", "": "localhost", "a/b:c": `a\057b\072c`, "a b\n/..": `a_b_\057..`,
	} {
		if got := fileHost(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestUniqueNames(t *testing.T) {
	now := time.Now()
	seen := make(map[string]bool)
	for range 1000 {
		seen[uniqueName(now, "h")] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different names", len(seen))
	}
}
