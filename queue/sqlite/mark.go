package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"tabard/queue"
)

// The lock file says how the last process that had the store left it.
const (
	markNew     = "new"     // the database is being made
	markClean   = "clean"   // closed
	markInUse   = "in use"  // not closed: it ended with the process, or the power
	markDamaged = "damaged" // and, on the next lines, why: to be checked whole
	markSwap    = "swap"    // a repair's new database takes the place: see finishSwap

	maxMark = 4096 // bytes
)

// marked returns what the mark is; empty: there was no store.
func (b *bodyFiles) marked() (string, error) {
	f, err := os.Open(b.path(lockName)) // the lock itself may be held by another
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMark))
	return strings.TrimSuffix(string(text), "\n"), err
}

// begin notes that the store is in use, durably, and returns what the mark was.
func (b *bodyFiles) begin() (before string, err error) {
	before, err = b.marked()
	switch {
	case err != nil:
		return "", err
	case strings.HasPrefix(before, markDamaged):
		return before, nil // until a check finds that it is not
	case before == "" || before == markNew:
		return before, b.mark(markNew)
	}
	return before, b.mark(markInUse)
}

func (b *bodyFiles) mark(text string) error {
	if err := b.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := b.lock.WriteAt([]byte(text[:min(len(text), maxMark-1)]+"\n"), 0); err != nil {
		return err
	}
	return b.lock.Sync()
}

// end lets go of the directory, and notes how the store is left.
func (b *bodyFiles) end(why error) error {
	var err error
	switch {
	case why == nil:
		err = b.mark(markClean)
	case errors.Is(why, queue.ErrCorrupt):
		err = b.mark(markDamaged + "\n" + why.Error())
	}
	return errors.Join(err, b.lock.Close())
}

// checkTime bounds the check after an unclean end, so that a queue of any size
// starts in time. Measured, a million envelopes of a million messages are checked in
// 3.5 s, their messages in 5 s more: of so many, a part is looked at. A process that
// was killed leaves no damage; what the loss of power may have left, if the disk
// does not keep its word, is found at the latest when it is read (health).
const checkTime = 2 * time.Second

// check refuses a database that is damaged. After a clean end it looks at
// nothing, after an unclean one at as much as there is time for, and after damage
// was seen at everything.
func (s *Store) check(ctx context.Context, before string) error {
	damaged := strings.HasPrefix(before, markDamaged)
	if before == markClean {
		return nil
	}
	pragmas := []string{"PRAGMA quick_check(5)"}
	if ok, err := s.hasTable(ctx, "envelopes"); err != nil {
		return wrap(err)
	} else if ok {
		pragmas = []string{"PRAGMA quick_check(envelopes)", "PRAGMA quick_check(5)"}
	}
	if damaged { // the quick ones do not compare indices with their tables
		pragmas = []string{"PRAGMA integrity_check(5)"}
	}
	hurry, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if damaged {
		hurry = ctx
	}
	for _, pragma := range pragmas {
		faults, err := s.faults(hurry, pragma)
		switch {
		case err != nil && hurry.Err() != nil && ctx.Err() == nil:
			return nil // as much as there was time for
		case err != nil:
			return wrap(err)
		case len(faults) > 0:
			return fmt.Errorf("%w: %s", queue.ErrCorrupt, strings.Join(faults, "; "))
		}
	}
	if damaged {
		return s.files.mark(markInUse)
	}
	return nil
}

// count returns how many bodies there are.
func (b *bodyFiles) count() (int, error) {
	n := 0
	err := b.each(func(name string) error {
		if id, _, err := queue.ParseID(name); err == nil && id > 0 {
			n++
		}
		return nil
	})
	return n, err
}
