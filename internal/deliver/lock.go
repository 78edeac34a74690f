package deliver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Waiting for an mbox lock. A dot-lock that was not touched for lockStale was
// left by a program that died.
const (
	lockTimeout = time.Minute
	lockStale   = 5 * time.Minute
	lockPoll    = 50 * time.Millisecond
	lockPollMax = time.Second
)

// errLocked says that another program has the mailbox.
var errLocked = errors.New("mailbox is locked")

// lockMbox takes the lock among our own deliveries (fcntl locks do not count
// within one process), then the dot-lock.
func (a *agent) lockMbox(ctx context.Context, path string) (unlock func(), err error) {
	if err := a.boxes.lock(ctx, path); err != nil {
		return nil, lockError(err)
	}
	undo, err := a.dotLock(ctx, path+".lock")
	if err != nil {
		a.boxes.unlock(path)
		return nil, err
	}
	return func() {
		undo()
		a.boxes.unlock(path)
	}, nil
}

// dotLock makes the lock file. Where the directory does not let this user make
// one, the fcntl lock must do.
func (a *agent) dotLock(ctx context.Context, name string) (undo func(), err error) {
	err = poll(ctx, func() (bool, error) {
		err := a.makeLock(name)
		if errors.Is(err, fs.ErrExist) {
			a.breakStale(name)
			return false, nil
		}
		return true, err
	})
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return func() {}, nil
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() {
		if err := a.remove(name); err != nil {
			a.log.Warn("mda cannot remove lock", "file", name, "error", err)
		}
	}, nil
}

func (a *agent) makeLock(name string) error {
	f, err := a.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	// The number is a courtesy to whoever finds the lock; the lock is the name.
	_, _ = f.Write([]byte(strconv.Itoa(os.Getpid())))
	return f.Close()
}

func (a *agent) breakStale(name string) {
	info, err := a.fs.Lstat(name)
	if err != nil || time.Since(info.ModTime()) < lockStale {
		return
	}
	if err := a.remove(name); err == nil {
		a.log.Warn("mda removed stale lock", "file", name)
	}
}

// lockFile takes the fcntl lock; closing the file gives it back.
func lockFile(ctx context.Context, f file) error {
	return poll(ctx, func() (bool, error) {
		lock := syscall.Flock_t{Type: syscall.F_WRLCK}
		err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock)
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EINTR) {
			return false, nil
		}
		return true, err
	})
}

// poll calls try until it is done or ctx ends.
func poll(ctx context.Context, try func() (done bool, err error)) error {
	for wait := lockPoll; ; wait = min(2*wait, lockPollMax) {
		if done, err := try(); done {
			return err
		}
		select {
		case <-ctx.Done():
			return lockError(ctx.Err())
		case <-time.After(wait):
		}
	}
}

// lockError tells a lock that others kept too long from a stop of our own.
func lockError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return refusal{deferred("4.2.0", "%v", errLocked)}
	}
	return err
}

// keyedLock is one lock per name.
type keyedLock struct {
	mu    sync.Mutex
	locks map[string]*namedLock
}

type namedLock struct {
	users int
	held  chan struct{} // holds one token while locked
}

func newKeyedLock() *keyedLock { return &keyedLock{locks: make(map[string]*namedLock)} }

// lock waits for the name, at most until ctx ends.
func (k *keyedLock) lock(ctx context.Context, name string) error {
	k.mu.Lock()
	l := k.locks[name]
	if l == nil {
		l = &namedLock{held: make(chan struct{}, 1)}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()
	select {
	case l.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		k.leave(name, l)
		return ctx.Err()
	}
}

func (k *keyedLock) unlock(name string) {
	k.mu.Lock()
	l := k.locks[name]
	k.mu.Unlock()
	<-l.held
	k.leave(name, l)
}

func (k *keyedLock) leave(name string, l *namedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, name)
	}
}
