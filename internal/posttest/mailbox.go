package posttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Messages returns what arrived in the Maildir so far, in order of file names.
// Line ends are LF; Postfix has put Return-Path, X-Original-To, Delivered-To
// and Received in front.
func (s *Server) Messages() ([]string, error) {
	dir := filepath.Join(s.mailbox(), "new")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, string(text))
	}
	return out, nil
}

// Await waits until at least n messages arrived, and returns them all.
func (s *Server) Await(ctx context.Context, n int) ([]string, error) {
	for {
		got, err := s.Messages()
		if err != nil || len(got) >= n {
			return got, err
		}
		select {
		case <-s.ended:
			return got, fmt.Errorf("postfix ended: %v", s.err)
		case <-ctx.Done():
			return got, fmt.Errorf("%d of %d messages arrived: %w", len(got), n, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
