package smtpd

import (
	"strings"
	"testing"

	"tabard/internal/config"
	"tabard/internal/eventlog/eventlogtest"
	"tabard/lookup"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	rec := &eventlogtest.Recorder{}
	r := start(t, withTLS(config.TLSStart), withAuth(config.AuthOptional), onLookup(func(f *fakeLookup) {
		f.auth = func(q lookup.AuthRequest) (lookup.AuthReply, error) {
			return lookup.AuthReply{OK: q.Password == "right"}, nil
		}
	}))
	r.srv.RecordTo(rec)
	c := r.secure()
	c.do("AUTH PLAIN "+b64("\x00joe\x00wrong"), "535")
	c.do("AUTH SCRAM", "504")
	c.do("AUTH PLAIN "+b64("\x00joe\x00right"), "235")
	c.do("MAIL FROM:<not an address>", "501")
	c.do("MAIL FROM:<a@client.example>", "250")
	c.do("RCPT TO:<b@example.org>", "250")
	c.do("RCPT TO:<>", "501")
	c.do("VRFY", "252")
	c.do("NONSENSE", "500")
	c.do("DATA", "354")
	c.do("Message-ID:\r\n <one@client.example>\r\nSubject: x\r\nMessage-ID: <two@x>\r\n\r\nx\r\n.", "250")
	c.do("MAIL FROM:<a@client.example>", "250")
	c.do("RCPT TO:<b@example.org>", "250")
	c.do("DATA", "354")
	c.do("Subject: without one\r\n\r\nx\r\n.", "250")
	c.do("QUIT", "221")
	c.gone()
	r.await("smtp disconnected")
	subs := r.queue.all()
	if len(subs) != 2 {
		t.Fatalf("%d messages", len(subs))
	}
	got := rec.Lines("session listener size helo tls code status")
	for i, name := range []string{"M1", "M2"} {
		got = strings.ReplaceAll(got, subs[i].Message.ID.String(), name)
	}
	session := subs[0].Message.Session
	want := `result result=rejected text=Authentication failed: joe
result result=rejected text=Unrecognized authentication mechanism
result sender=not an address result=rejected text=Was expecting MAIL arg syntax of FROM:<address>
result sender=a@client.example result=rejected text=Was expecting RCPT arg syntax of TO:<address>
message id=M1 sender=a@client.example domain=client.example recipients=1 header_id=one@client.example protocol=ESMTPSA login=joe peer=127.0.0.1
message id=M2 sender=a@client.example domain=client.example recipients=1 header_id=M2@mx.example.org protocol=ESMTPSA login=joe peer=127.0.0.1
session id=` + session + ` direction=in peer=127.0.0.1 name=localhost verdict=unchecked login=joe messages=2 reason=quit
`
	if got != want {
		t.Errorf("told\n%swant\n%s", got, want)
	}
	if full := rec.Lines(""); strings.Count(full, session) != 7 || !strings.Contains(full, " tls=TLSv1.3:TLS_") || !strings.Contains(full, "helo=") || !strings.Contains(full, "code=501 status=5.") {
		t.Errorf("%s", full)
	}
}
