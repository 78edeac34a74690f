package main

import (
	"context"
	"os"
	"path/filepath"

	"tabard/internal/osmtpdtest"
)

// startOpenSMTPD starts Debian's OpenSMTPD. Without a destination it does not
// deliver what it accepted, so that, as with the others, only acceptance is
// measured. It is tuned: its limits are lifted where they are below the load.
func (s *settings) startOpenSMTPD(ctx context.Context, dir, relayTo string) (*target, error) {
	if err := s.ownCertificate(dir); err != nil {
		return nil, err
	}
	opt := osmtpdtest.Options{
		Dir: dir, Domains: []string{"bench.example"}, Files: make(map[string][]byte), Listeners: []string{`tls pki "bench"`},
		Lines: []string{
			`pki "bench" cert "` + osmtpdtest.FilesDir + `chain.pem"`, `pki "bench" key "` + osmtpdtest.FilesDir + `key.pem"`,
			"smtp limit max-mails 1000000",
		},
		Args: []string{"-P", "mda"},
	}
	for _, name := range []string{"chain.pem", "key.pem"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		opt.Files[name] = text
	}
	if relayTo != "" {
		opt.Args = nil
		opt.Lines = append(opt.Lines,
			// By default it holds a backlog back after 50 messages, and waits seconds
			// between its connections to one host.
			"mta limit max-conn-per-host 50 max-conn-per-route 50 max-conn-per-connector 50 session-mail-max 10000",
			"mta limit conn-delay-route 0 reconn-delay-route 0 conn-delay-relay 0",
			"mta limit task-hiwat 5000 task-lowat 4000 task-release 1000",
			"scheduler limit max-inflight 20000 max-evp-batch-size 1024 max-msg-batch-size 1024 max-schedule 1000",
			`action "out" relay host "smtp+notls://`+relayTo+`"`, `match from any for domain "bench.example" action "out"`)
	}
	if s.dead != "" {
		opt.Lines = append(opt.Lines, `action "dead" relay host "smtp+notls://`+s.dead+`"`, `match from any for domain "dead.example" action "dead"`)
	}
	o, err := osmtpdtest.Start(ctx, opt)
	if err != nil {
		return nil, err
	}
	return &target{addr: o.Addrs[0], pid: o.Pid(), ca: filepath.Join(dir, "ca.pem"), stop: o.Close}, nil
}
