package config

import (
	"crypto/tls"
	"testing"
	"time"
)

func TestGlobals(t *testing.T) {
	tests := []struct {
		text string
		want func(c *Config)
	}{
		{"admd a.example", func(c *Config) { c.ADMD = "a.example" }},
		{"hostname a.example", func(c *Config) { c.Hostname = "a.example" }},
		{`control "/run/x"`, func(c *Config) { c.Control = "/run/x" }},
		{"log sql <t>", func(c *Config) { c.LogSQL.Table = "t" }},
		{"log sql <t> keep 30d max-size 10G", func(c *Config) { c.LogSQL = LogSQL{Table: "t", Keep: 30 * day, MaxSize: 10 << 30} }},
		{"log sql <t> stages", func(c *Config) { c.LogSQL = LogSQL{Table: "t", Stages: true} }},
		{"metrics 127.0.0.1:9100", func(c *Config) { c.Metrics = "127.0.0.1:9100" }},
		{"metrics [::1]:9100", func(c *Config) { c.Metrics = "[::1]:9100" }},
		{"metrics localhost:9100", func(c *Config) { c.Metrics = "127.0.0.1:9100" }},
		{"process metrics user u", func(c *Config) { c.Processes = []Process{{Name: "metrics", User: "u"}} }},
		{"sandbox off", func(c *Config) { c.Sandbox = "off" }},
		{"resolver 192.0.2.1", func(c *Config) { c.Resolvers = []string{"192.0.2.1:53"} }},
		{"bounce warn-interval 1h, 2d", func(c *Config) { c.Bounce.WarnIntervals = []time.Duration{time.Hour, 2 * day} }},
		{"queue ttl 2d", func(c *Config) { c.Queue.TTL = 2 * day }},
		{"queue retry 1m", func(c *Config) { c.Queue.Retry = []time.Duration{time.Minute} }},
		{"queue compression", func(c *Config) { c.Queue.Compression = true }},
		{`queue encryption "/k"`, func(c *Config) { c.Queue.Encryption = "/k" }},
		{"queue encryption /k read-only", func(c *Config) { c.Queue.Encryption, c.Queue.ReadOnly = "/k", true }},
		{"queue sqlite:/q.db", func(c *Config) { c.Queue.Driver, c.Queue.Source = "sqlite", "/q.db" }},
		{"queue postgres://h/q?a=b", func(c *Config) { c.Queue.Driver, c.Queue.Source = "postgres", "postgres://h/q?a=b" }},
		{"smtp ciphers ECDHE-RSA-AES256-GCM-SHA384", func(c *Config) { c.SMTP.Ciphers = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384} }},
		{"smtp limit max-mails 1 max-rcpt 2", func(c *Config) { c.SMTP.MaxMails, c.SMTP.MaxRcpt = 1, 2 }},
		{"smtp limit max-connections 3 max-errors 4", func(c *Config) { c.SMTP.MaxConnections, c.SMTP.MaxErrors = 3, 4 }},
		{"smtp future-release 0s", func(c *Config) { c.SMTP.FutureRelease = 0 }},
		{"smtp future-release 30d", func(c *Config) { c.SMTP.FutureRelease = 30 * day }},
		{"smtp max-priority 4", func(c *Config) { c.SMTP.MaxPriority = 4 }},
		{"smtp max-message-size 1000", func(c *Config) { c.SMTP.MaxMessageSize = 1000 }},
		{"smtp sub-addr-delim -", func(c *Config) { c.SMTP.SubAddrDelim = "-" }},
		{"smtp bare-newline normalize", func(c *Config) { c.SMTP.NormalizeBareNewline = true }},
		{"srs key k2", func(c *Config) { c.SRS.Key = "k2" }},
		{"srs key backup old", func(c *Config) { c.SRS.Backup = "old" }},
		{"srs ttl 5d", func(c *Config) { c.SRS.TTL = 5 * day }},
		{"srs key file:/etc/tabard/srs.key", func(c *Config) { c.SRS.Key = "file:/etc/tabard/srs.key" }},
		{"mta max-deferred 7", func(c *Config) { c.MTA.MaxDeferred = 7 }},
		{"mta limit inet4 task-hiwat 9", func(c *Config) { c.MTA.Limits = []MTALimit{{Key: "inet4"}, {Key: "task-hiwat", Value: 9}} }},
		{"mta limit for domain d.example session-keepalive 1", func(c *Config) {
			c.MTA.Limits = []MTALimit{{Domain: "d.example", Key: "session-keepalive", Value: 1}}
		}},
		{"mda limit max-session 5", func(c *Config) { c.MDA.Limits = []KeyVal{{"max-session", "5"}} }},
		{"scheduler limit max-inflight 5", func(c *Config) { c.Scheduler.Limits = []KeyVal{{"max-inflight", "5"}} }},
		{"process queue user u group g chroot /c", func(c *Config) {
			c.Processes = []Process{{Name: "queue", User: "u", Group: "g", Chroot: "/c"}}
		}},
		{"pki x.example dhe NONE key /k\npki X.example cert /c", func(c *Config) {
			c.PKIs = append(c.PKIs, PKI{Name: "x.example", CertFile: "/c", KeyFile: "/k", DHE: "none"})
		}},
		{"ca * cert /x", func(c *Config) { c.CAs = append(c.CAs, CA{Name: "*", CertFile: "/x"}) }},
		{"proc q cmd user u", func(c *Config) { c.Procs = append(c.Procs, Proc{Name: "q", Command: "cmd", User: "u"}) }},
		{"log = sql\nhostname $log", func(c *Config) { c.Hostname = "sql" }}, // our words are free for macros
	}
	for _, tt := range tests {
		got, want := parse(t, tt.text), parse(t, "")
		tt.want(want)
		got.Where, want.Where, got.Unsupported, want.Unsupported = nil, nil, nil, nil
		same(t, tt.text, got, want)
	}
}

func TestReserved(t *testing.T) {
	if n := len(Reserved()); n != 101 {
		t.Errorf("%d reserved words, OpenSMTPD 7.8 has 101", n)
	}
	for _, word := range Reserved() {
		if _, err := Parse("x", []byte("table "+word+" { a }\nmatch for any reject"), Options{}); err == nil {
			t.Errorf("%s may be a name without quotes", word)
		}
		if _, err := Parse("x", []byte("table \""+word+"\" { a }\nmatch for any reject"), Options{}); err != nil {
			t.Errorf("%s may not be a name with quotes: %v", word, err)
		}
	}
}
