package sqlite

import (
	"fmt"

	"tabard/internal/rpc"
	"tabard/queue"
)

// New mail must leave room: results of deliveries are written, too, before anything is
// removed, and a log that cannot be folded into the database for want of space is never
// reused. A disk that new mail fills to the last byte would stay full.
const (
	reserveLeast = 16 << 20  // bytes
	reserveMost  = 256 << 20 // bytes; between the two it is a fiftieth of the file system
	reserveSmall = 8         // and never more than this part of a small one
	pageSize     = 4096      // of SQLite, bytes
)

// reserve is how much of a file system new mail leaves free, in bytes.
func reserve(total int64) int64 {
	return min(max(reserveLeast, min(reserveMost, total/50)), total/reserveSmall)
}

// leaves is rpc.ErrNoSpace if n bytes more would not leave the reserve. What cannot be
// known hinders nothing.
func (b *bodyFiles) leaves(n int64) error {
	free, total, err := b.disk.Space(b.lock)
	if err != nil || total <= 0 {
		return nil
	}
	if keep := reserve(total); free-n < keep {
		return fmt.Errorf("%w: %s has %d MiB free, and %d MiB are kept for what is there already", rpc.ErrNoSpace, b.dir, free>>20, keep>>20)
	}
	return nil
}

// fits is rpc.ErrNoSpace if changes hold new mail for which there is no room. A body is
// written twice: to the log, and to the database when that is folded.
func (s *Store) fits(changes []*queue.Change) error {
	takes, size := false, 0
	for _, c := range changes {
		takes = takes || c.Takes()
		size += c.Bytes()
	}
	if !takes {
		return nil
	}
	return s.files.leaves(int64(2*size + pageSize*s.stmts.unfolded))
}
