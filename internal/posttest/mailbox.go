package posttest

import (
	"context"
	"fmt"

	"tabard/internal/unpacked"
)

// Messages returns what arrived in the Maildir so far, in order of file names.
// Line ends are LF; Postfix has put Return-Path, X-Original-To, Delivered-To
// and Received in front.
func (s *Server) Messages() ([]string, error) { return unpacked.Maildir(s.mailbox()) }

// Await waits until at least n messages arrived, and returns them all.
func (s *Server) Await(ctx context.Context, n int) ([]string, error) {
	got, err := unpacked.AwaitMaildir(ctx, s.master.Ended, s.mailbox(), n)
	if err != nil {
		err = fmt.Errorf("postfix: %w", err)
	}
	return got, err
}
