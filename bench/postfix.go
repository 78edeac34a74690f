package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"time"

	"tabard/internal/posttest"
	"tabard/internal/selfca"
)

// startPostfix starts Debian's Postfix. Without a destination it puts accepted
// mail on hold, so that, as with the others, only acceptance is measured.
func startPostfix(ctx context.Context, dir, relayTo string) (*target, error) {
	now := time.Now()
	ca, err := selfca.New("bench", now.Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	chain, key, err := ca.Issue(selfca.Request{Names: []string{"bench.example"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"chain.pem": chain, "key.pem": key, "ca.pem": ca.PEM()}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	opt := posttest.Options{
		Dir: dir, Hostname: "postfix.example", CertFile: filepath.Join(dir, "chain.pem"), KeyFile: filepath.Join(dir, "key.pem"),
		Main: []string{"smtpd_client_connection_count_limit = 0", "default_process_limit = 250", "smtpd_client_connection_rate_limit = 0"},
	}
	if relayTo == "" {
		opt.Domains, opt.Discard = []string{"bench.example"}, true
		opt.Main = append(opt.Main, "smtpd_recipient_restrictions = static:hold, permit")
	} else {
		host, port, err := net.SplitHostPort(relayTo)
		if err != nil {
			return nil, err
		}
		opt.Relayhost = "[" + host + "]:" + port
	}
	p, err := posttest.Start(ctx, opt)
	if err != nil {
		return nil, err
	}
	return &target{addr: p.Addr, pid: p.Pid(), ca: filepath.Join(dir, "ca.pem"), stop: p.Close}, nil
}
