package sqlite

import (
	"context"
	"fmt"
)

// A flood leaves free pages behind. New mail fills them; what it does not need for
// now goes back to the file system, a step at a time, so that no commit waits for
// long behind one.
const (
	tidyStep = 1024 // pages of 4 KiB that one step gives back
	tidyKeep = 4096 // free pages that stay, for the mail to come
)

// Tidy gives some of the free space of the database back to the file system, and
// reports whether there is more. A database that was made by an old version
// without page pointers keeps its size. Like Apply it is for one goroutine.
func (s *Store) Tidy(ctx context.Context) (more bool, err error) {
	return s.tidy(ctx, tidyStep, tidyKeep)
}

func (s *Store) tidy(ctx context.Context, step, keep int) (more bool, err error) {
	if err := s.Writable(); err != nil {
		return false, err
	}
	w := s.stmts
	var free, all int
	for pragma, n := range map[string]*int{"freelist_count": &free, "page_count": &all} {
		if err := w.conn.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(n); err != nil {
			return false, fmt.Errorf("queue database %s: %w", s.path, s.health.judge(err))
		}
	}
	spare := free - max(keep, (all-free)/4)
	if spare <= 0 {
		return false, nil
	}
	// It takes one step of the statement for each page.
	rows, err := w.conn.QueryContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", min(spare, step)))
	if err == nil {
		for rows.Next() {
			continue
		}
		err = rows.Err()
		_ = rows.Close()
	}
	if err != nil {
		return false, fmt.Errorf("queue database %s: give space back: %w", s.path, s.health.judge(err))
	}
	// The file becomes shorter only as the log is folded into it.
	w.unfolded = max(w.unfolded, checkpointPages)
	s.fold(ctx)
	var left int
	if err := w.conn.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&left); err != nil {
		return false, fmt.Errorf("queue database %s: %w", s.path, s.health.judge(err))
	}
	return left < free && spare > step, nil
}
