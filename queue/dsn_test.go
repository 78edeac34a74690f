package queue_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tabard/lookup"
	"tabard/queue"
)

// report is a DSN as a mail program reads it.
type report struct {
	header   mail.Header
	kind     string // report-type
	types    []string
	text     string
	message  textproto.MIMEHeader   // per-message fields
	rcpts    []textproto.MIMEHeader // per-recipient fields
	original string
}

func parseReport(t testing.TB, body []byte) report {
	t.Helper()
	for i, line := range bytes.SplitAfter(body, []byte("\n")) {
		if len(line) > 0 && !bytes.HasSuffix(line, []byte("\r\n")) || bytes.Count(line, []byte("\r")) > 1 {
			t.Fatalf("line %d does not end in CRLF: %q", i+1, line)
		}
		if len(line) > 1000 || bytes.IndexByte(line, 0) >= 0 {
			t.Fatalf("line %d has %d bytes: %q", i+1, len(line), line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%v:\n%s", err, body)
	}
	media, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || media != "multipart/report" {
		t.Fatalf("media type %q, %v", media, err)
	}
	r := report{header: m.Header, kind: params["report-type"]}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			return r
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, body)
		}
		content := decoded(t, p, m.Header.Get("Content-Transfer-Encoding") == "8bit")
		r.types = append(r.types, p.Header.Get("Content-Type"))
		switch len(r.types) {
		case 1:
			r.text = string(content)
		case 2:
			r.fields(t, content)
		default:
			r.original = string(content)
		}
	}
}

// decoded is what a part holds. It must be encoded as it says, and as the whole
// allows.
func decoded(t testing.TB, p *multipart.Part, eightBit bool) []byte {
	t.Helper()
	enc := p.Header.Get("Content-Transfer-Encoding")
	raw, err := io.ReadAll(p)
	if err != nil {
		t.Fatal(err)
	}
	ascii := !bytes.ContainsFunc(raw, func(r rune) bool { return r >= utf8.RuneSelf })
	switch {
	case !ascii && (enc != "8bit" || !eightBit):
		t.Fatalf("encoding %q, as a whole 8bit %t: %q", enc, eightBit, raw)
	case enc != "quoted-printable":
		return raw
	}
	text, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (r *report) fields(t testing.TB, content []byte) {
	t.Helper()
	in := textproto.NewReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		h, err := in.ReadMIMEHeader()
		if len(h) > 0 {
			if r.message == nil {
				r.message = h
			} else {
				r.rcpts = append(r.rcpts, h)
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, content)
		}
	}
}

// bounced lets a message fail and returns the job with its report.
func bounced(t *testing.T, s queue.Submission, body string, rs ...queue.Result) queue.Job {
	t.Helper()
	r := start(t, queue.Options{Hostname: "mx.test.example"})
	r.enqueue(s, body)
	w := r.relayer()
	for i := range rs {
		j := takeOne(t, w)
		done(t, w, j, rs[i])
	}
	return takeOne(t, w)
}

var failed = queue.Result{Outcome: queue.Failed, Code: 550, Enhanced: "5.1.1", Text: "5.1.1 <b@y.example> no such\r\nuser", Remote: "mx.y.example"}

func TestBounce(t *testing.T) {
	s := message("a@x.example", "b@y.example")
	s.Message.EnvID, s.Message.Ret = "env 1", "FULL"
	s.Recipients[0].ORCPT, s.Recipients[0].Recipient = "rfc822;alias@x.example", "alias@x.example"
	body := text + "--not a boundary\r\n"
	j := bounced(t, s, body, failed)
	if e := j.Envelopes[0]; j.Message.Sender != "" || e.Address != "a@x.example" || e.Notify != "NEVER" || j.Message.UTF8 || j.Message.EightBit {
		t.Errorf("envelope: %+v", j)
	}
	r := parseReport(t, j.Body)
	for name, want := range map[string]string{
		"From": "Mail Delivery System <MAILER-DAEMON@mx.test.example>", "To": "<a@x.example>",
		"Auto-Submitted": "auto-replied", "Mime-Version": "1.0",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, err := r.header.Date(); err != nil {
		t.Errorf("Date: %v", err)
	}
	if id := r.header.Get("Message-Id"); !regexp.MustCompile(`^<[0-9a-f]{16}\.bounce@mx\.test\.example>$`).MatchString(id) {
		t.Errorf("Message-ID: %s", id)
	}
	if want := []string{"text/plain; charset=us-ascii", "message/delivery-status", "message/rfc822"}; !cmp.Equal(r.types, want) || r.kind != "delivery-status" {
		t.Errorf("types: %q", r.types)
	}
	if !strings.Contains(r.text, "alias@x.example") || !strings.Contains(r.text, "no such user") {
		t.Errorf("text: %s", r.text)
	}
	if r.message.Get("Reporting-MTA") != "dns; mx.test.example" || r.message.Get("Original-Envelope-Id") != "env 1" {
		t.Errorf("fields: %v", r.message)
	}
	got := r.rcpts[0]
	if got.Get("Last-Attempt-Date") == "" {
		t.Error("no Last-Attempt-Date")
	}
	got.Del("Last-Attempt-Date")
	want := textproto.MIMEHeader{
		"Original-Recipient": {"rfc822; alias@x.example"}, "Final-Recipient": {"rfc822; b@y.example"},
		"Action": {"failed"}, "Status": {"5.1.1"}, "Remote-Mta": {"dns; mx.y.example"},
		"Diagnostic-Code": {"smtp; 550 5.1.1 <b@y.example> no such user"},
	}
	if d := cmp.Diff(want, got); d != "" || len(r.rcpts) != 1 {
		t.Errorf("recipient fields: %s", d)
	}
	if r.original != body {
		t.Errorf("original: %q", r.original)
	}
}

func TestBounceReturnsHeaderOnly(t *testing.T) {
	for _, ret := range []string{"", "HDRS"} {
		s := message("a@x.example", "b@y.example")
		s.Message.Ret = ret
		r := parseReport(t, bounced(t, s, text, failed).Body)
		if r.original != "From: a@x.example\r\nSubject: hello\r\n" || r.types[2] != "text/rfc822-headers" {
			t.Errorf("RET %q: %q %q", ret, r.types, r.original)
		}
	}
}

// The recipients of one job that fail share a report; what was delivered is not
// in it.
func TestBounceOfSeveral(t *testing.T) {
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "1@y.example", "2@y.example", "3@y.example", "4@y.example"), text)
	w := r.relayer()
	j := takeOne(t, w)
	rs := results(j, failed)
	rs[1].Outcome, rs[2].Enhanced = queue.Delivered, "5.7.1\r\nAction: delivered"
	rs[3] = queue.Result{ID: rs[3].ID, Outcome: queue.Failed, Enhanced: "5.3.0", Text: "lost"}
	if err := w.Done(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	rep := parseReport(t, takeOne(t, w).Body)
	var got []string
	for _, h := range rep.rcpts {
		got = append(got, h.Get("Final-Recipient")+" "+h.Get("Action")+" "+h.Get("Status")+" "+h.Get("Diagnostic-Code"))
	}
	want := []string{
		"rfc822; 1@y.example failed 5.1.1 smtp; 550 5.1.1 <b@y.example> no such user",
		"rfc822; 3@y.example failed 5.0.0 smtp; 550 5.1.1 <b@y.example> no such user",
		"rfc822; 4@y.example failed 5.3.0 x-tabard; 5.3.0 lost",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if s := r.stats(); s.Messages != 1 || s.Bounced != 1 || s.Failed != 3 || s.Delivered != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestNotify(t *testing.T) {
	ok := queue.Result{Outcome: queue.Delivered, Code: 250, Enhanced: "2.1.5", Text: "fine", Remote: "mx.y.example"}
	handed := ok
	handed.Relayed = true
	for _, tt := range []struct {
		notify string
		result queue.Result
		action string // empty: no report
		status string
	}{
		{"", failed, "failed", "5.1.1"},
		{"FAILURE", failed, "failed", "5.1.1"},
		{"SUCCESS,FAILURE,DELAY", failed, "failed", "5.1.1"},
		{"NEVER", failed, "", ""},
		{"SUCCESS", failed, "", ""},
		{"DELAY", failed, "", ""},
		{"", ok, "", ""},
		{"FAILURE", ok, "", ""},
		{"SUCCESS", ok, "relayed", "2.1.5"},
		{"SUCCESS", handed, "", ""}, // the next server reports
	} {
		t.Run(fmt.Sprint(tt.notify, tt.result.Outcome, tt.result.Relayed), func(t *testing.T) {
			r := start(t, queue.Options{})
			s := message("a@x.example", "b@y.example")
			s.Recipients[0].Notify, s.Message.Ret = tt.notify, "FULL"
			r.enqueue(s, text)
			w := r.relayer()
			done(t, w, takeOne(t, w), tt.result)
			if tt.action == "" {
				if s := r.stats(); s.Messages != 0 || s.Bounced != 0 {
					t.Errorf("stats: %+v", s)
				}
				return
			}
			rep := parseReport(t, takeOne(t, w).Body)
			if h := rep.rcpts[0]; h.Get("Action") != tt.action || h.Get("Status") != tt.status {
				t.Errorf("fields: %v", h)
			}
			if full := rep.types[2] == "message/rfc822"; full != (tt.action == "failed") {
				t.Errorf("returned as %s", rep.types[2])
			}
		})
	}
}

func TestLocalSuccessReport(t *testing.T) {
	r := start(t, queue.Options{})
	s := message("a@x.example")
	s.Recipients = []queue.Envelope{mailbox("ann")}
	s.Recipients[0].Notify = "SUCCESS"
	r.enqueue(s, text)
	w, release := r.LocalWorker(1000)
	defer release()
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
	rep := parseReport(t, takeOne(t, r.relayer()).Body)
	if h := rep.rcpts[0]; h.Get("Action") != "delivered" || h.Get("Status") != "2.0.0" {
		t.Errorf("fields: %v", h)
	}
}

func TestNoBounceOfABounce(t *testing.T) {
	r := start(t, queue.Options{})
	r.enqueue(message("", "b@y.example"), text)
	w := r.relayer()
	done(t, w, takeOne(t, w), failed)
	if s := r.stats(); s.Messages != 0 || s.Bounced != 0 || s.Failed != 1 {
		t.Errorf("stats: %+v", s)
	}
	if !strings.Contains(r.log.String(), "result=PermFail") {
		t.Errorf("log: %s", r.log)
	}
}

// A sender that cannot be reached is a double bounce: logged, and dropped.
func TestUnroutableSender(t *testing.T) {
	l := &local{bounces: map[string]lookup.RecipientReply{"gone@x.example": {Code: 550, Enhanced: "5.1.1", Text: "unknown"}}}
	r := open(t, filepath.Join(t.TempDir(), "q.db"), queue.Options{}, l)
	r.enqueue(message("gone@x.example", "b@y.example"), text)
	w := r.relayer()
	done(t, w, takeOne(t, w), failed)
	eventually(t, "removal, and its line", func() bool {
		return r.stats().Messages == 0 && strings.Contains(r.log.String(), `msg="queue drop"`)
	})
	if !strings.Contains(r.log.String(), "550 5.1.1 unknown") {
		t.Errorf("log: %s", r.log)
	}
}

func TestLocalSenderGetsLocalBounce(t *testing.T) {
	l := &local{bounces: map[string]lookup.RecipientReply{
		"ann@x.example": {Targets: []lookup.Target{{Action: "box", User: "ann", Address: "ann@x.example"}}}}}
	r := open(t, filepath.Join(t.TempDir(), "q.db"), queue.Options{}, l)
	r.enqueue(message("ann@x.example", "b@y.example"), text)
	w := r.relayer()
	done(t, w, takeOne(t, w), failed)
	lw, release := r.LocalWorker(1000)
	defer release()
	if j := takeOne(t, lw); j.Message.Sender != "" || j.Delivery.User != "ann" {
		t.Errorf("job: %+v", j)
	}
}

func TestInternationalBounce(t *testing.T) {
	s := message("dörte@bücher.example", "jürgen@y.example")
	s.Message.UTF8, s.Message.EightBit = true, true
	s.Recipients[0].ORCPT = "utf-8;jürgen@y.example"
	j := bounced(t, s, "Subject: ü\r\n\r\nü\r\n", queue.Result{Outcome: queue.Failed, Code: 550, Enhanced: "5.1.1", Text: "kein Benutzer für dich: ü"})
	if !j.Message.UTF8 {
		t.Error("report needs no SMTPUTF8")
	}
	r := parseReport(t, j.Body)
	if want := []string{"text/plain; charset=utf-8", "message/global-delivery-status", "message/global-headers"}; r.header.Get("Content-Transfer-Encoding") != "8bit" || !cmp.Equal(r.types, want) || r.kind != "global-delivery-status" {
		t.Errorf("types: %s %q", r.kind, r.types)
	}
	if h := r.rcpts[0]; h.Get("Final-Recipient") != "utf-8; jürgen@y.example" || h.Get("Original-Recipient") != "utf-8; jürgen@y.example" ||
		!strings.Contains(h.Get("Diagnostic-Code"), "für") {
		t.Errorf("fields: %v", h)
	}
	if r.original != "Subject: ü\r\n" {
		t.Errorf("original: %q", r.original)
	}
}

// A sender without SMTPUTF8 gets ASCII only, whatever the others said.
func TestPlainBounceStaysASCII(t *testing.T) {
	j := bounced(t, message("a@x.example", "jürgen@y.example"), text,
		queue.Result{Outcome: queue.Failed, Code: 550, Text: "für\x00\x1b[2J dich", Remote: "mx\r\nX-Evil: 1"})
	for _, c := range j.Body {
		if c > '~' || c < ' ' && c != '\r' && c != '\n' && c != '\t' {
			t.Fatalf("byte %#x in\n%s", c, j.Body)
		}
	}
	r := parseReport(t, j.Body)
	if h := r.rcpts[0]; h.Get("Final-Recipient") != `utf-8; j\x{FC}rgen@y.example` || h.Get("X-Evil") != "" || h.Get("Status") != "5.0.0" {
		t.Errorf("fields: %v", h)
	}
}

// Text from strangers does not get out of its field, however long it is.
func TestHostileReply(t *testing.T) {
	long := strings.Repeat("ü\"<>", 5000)
	j := bounced(t, message("a@x.example", "b@y.example"), text, queue.Result{
		Outcome: queue.Failed, Code: 550, Enhanced: "5.1.1\r\n\r\n--x", Text: "\r\nSubject: x\r\n\r\n" + long, Remote: long})
	r := parseReport(t, j.Body)
	if len(r.types) != 3 || r.header.Get("Subject") != "Undelivered mail returned to sender" || len(r.rcpts) != 1 {
		t.Errorf("report: %+v", r)
	}
}

// The report of a large message carries it whole, through a file.
func TestLargeBounce(t *testing.T) {
	r := start(t, queue.Options{})
	s := message("a@x.example", "b@y.example")
	s.Message.Ret = "FULL"
	const n = 1 << 20
	if err := stream(t, r, s, n); err != nil {
		t.Fatal(err)
	}
	w := r.relayer()
	done(t, w, takeOne(t, w), failed)
	j := takeOne(t, w)
	if size, _ := readBody(t, w, j); size <= n || size > n*17/16+8<<10 { // with CR, which its lines lack
		t.Errorf("report has %d bytes", size)
	}
}

// After a crash between a failure and its report, the report is still sent, and
// the delivery not tried again.
func TestReportSurvivesReopening(t *testing.T) {
	l := &local{}
	r := open(t, filepath.Join(t.TempDir(), "q.db"), queue.Options{}, l)
	r.enqueue(message("a@x.example", "b@y.example"), text)
	w := r.relayer()
	j := takeOne(t, w)
	l.set(func(l *local) { l.down = errDown })
	done(t, w, j, failed)
	r.stop()
	l.set(func(l *local) { l.down = nil })
	r = open(t, r.path, queue.Options{}, l)
	r.retryNow(0, -1)
	rep := parseReport(t, takeOne(t, r.relayer()).Body)
	if h := rep.rcpts[0]; h.Get("Final-Recipient") != "rfc822; b@y.example" || h.Get("Diagnostic-Code") != "smtp; 550 5.1.1 <b@y.example> no such user" {
		t.Errorf("fields: %v", h)
	}
}
