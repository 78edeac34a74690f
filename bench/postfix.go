package main

import (
	"context"
	"net"
	"path/filepath"

	"tabard/internal/posttest"
)

// tunedPostfix lifts what keeps Postfix from sending to one host as fast as it
// accepts: the brake on input, the slow start, the limit of 20 connections and short reuse
// of them.
func tunedPostfix() []string {
	return []string{
		"in_flow_delay = 0", "initial_destination_concurrency = 50", "default_destination_concurrency_limit = 50",
		"smtp_connection_reuse_count_limit = 1000",
	}
}

// startPostfix starts Debian's Postfix. Without a destination it puts accepted
// mail on hold, so that, as with the others, only acceptance is measured.
func (s *settings) startPostfix(ctx context.Context, dir, relayTo string, tuned ...string) (*target, error) {
	if err := s.ownCertificate(dir); err != nil {
		return nil, err
	}
	opt := posttest.Options{
		Dir: dir, Hostname: "postfix.example", CertFile: filepath.Join(dir, "chain.pem"), KeyFile: filepath.Join(dir, "key.pem"),
		Main: []string{"smtpd_client_connection_count_limit = 0", "default_process_limit = 250", "smtpd_client_connection_rate_limit = 0"},
	}
	opt.Main = append(opt.Main, tuned...)
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
	if host, port, err := net.SplitHostPort(s.dead); err == nil {
		opt.Main = append(opt.Main, "transport_maps = inline:{{dead.example = smtp:["+host+"]:"+port+"}}")
	}
	p, err := posttest.Start(ctx, opt)
	if err != nil {
		return nil, err
	}
	return &target{addr: p.Addr, pid: p.Pid(), ca: filepath.Join(dir, "ca.pem"), stop: p.Close}, nil
}
