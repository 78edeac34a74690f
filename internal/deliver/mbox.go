package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// mbox appends to a file. Lines that look like a separator are quoted as mboxrd
// does (one '>' before any number of '>' and "From "): mail.local's mboxo form
// cannot be undone, and readers that know only mboxo read mboxrd too. The
// locks are mail.local's: a dot-lock and an fcntl lock.
func (a *agent) mbox(ctx context.Context, p *parcel) error {
	path := p.how.Path
	if err := checkPath("mbox", path); err != nil {
		return err
	}
	locking, cancel := context.WithTimeout(ctx, min(a.opt.Timeout, lockTimeout))
	defer cancel()
	unlock, err := a.lockMbox(locking, path)
	if err != nil {
		return fmt.Errorf("mbox: %w", err)
	}
	defer unlock()
	f, err := a.openMbox(path)
	if err != nil {
		return fmt.Errorf("mbox: %w", err)
	}
	err = lockFile(locking, f)
	if err == nil {
		err = a.appendMbox(ctx, p, f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("mbox %s: %w", path, err)
	}
	return nil
}

// openMbox opens or makes the file. A link in place of a mailbox is refused, as
// mail.local does: it may be someone's way to another file.
func (a *agent) openMbox(path string) (file, error) {
	const flags = os.O_RDWR | os.O_APPEND | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err := a.fs.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = a.fs.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkMbox(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func checkMbox(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return refusal{deferred("4.3.5", "mbox %s is not a regular file", path)}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink != 1 {
		return refusal{deferred("4.3.5", "mbox %s has %d links", path, st.Nlink)}
	}
	return nil
}

// appendMbox writes the message at the end, and takes it back when that fails.
func (a *agent) appendMbox(ctx context.Context, p *parcel, f file) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	err = a.writeMbox(ctx, p, f, size)
	if err == nil && size == 0 {
		// Whoever made the file may not have lived to make its name durable.
		err = a.fs.SyncDir(filepath.Dir(p.how.Path))
	}
	if err == nil {
		return nil
	}
	if terr := f.Truncate(size); terr != nil {
		return errors.Join(err, fmt.Errorf("the mailbox may end in a part of a message: %w", terr))
	}
	return errors.Join(err, f.Sync())
}

func (a *agent) writeMbox(ctx context.Context, p *parcel, f file, size int64) error {
	gap, err := missingGap(f, size)
	if err != nil {
		return err
	}
	head := gap + fromLine(p.msg.Sender, time.Now()) + p.prelude()
	lw := newLineWriter(f, len(head)+int(min(p.size(), outBuffer)), true)
	lw.from = -1
	if err := lw.raw([]byte(head)); err != nil {
		return err
	}
	lw.from = 0
	if _, err := io.Copy(lw, p.body.reader(ctx)); err != nil {
		return err
	}
	if err := lw.flush(); err != nil {
		return err
	}
	end := "\n"
	if lw.last != '\n' {
		end = "\n\n"
	}
	if _, err := f.Write([]byte(end)); err != nil {
		return err
	}
	return f.Sync()
}

// missingGap returns what is needed so that the file ends with an empty line: a
// writer that died may have left a part of a message.
func missingGap(f file, size int64) (string, error) {
	if size == 0 {
		return "", nil
	}
	end := make([]byte, min(size, 2))
	if _, err := f.ReadAt(end, size-int64(len(end))); err != nil && err != io.EOF {
		return "", err
	}
	switch {
	case bytes.Equal(end, []byte("\n\n")):
		return "", nil
	case end[len(end)-1] == '\n':
		return "\n", nil
	}
	return "\n\n", nil
}

// fromLine is the separator: reverse-path and time as asctime(3) writes it.
func fromLine(sender string, now time.Time) string {
	sender = strings.Map(func(r rune) rune {
		if r == ' ' {
			return '_'
		}
		return r
	}, oneLineAddress(sender))
	if sender == "" {
		sender = "MAILER-DAEMON"
	}
	return "From " + sender + " " + now.Format(time.ANSIC) + "\n"
}
