package deliver

import "sync"

// dirSyncer makes names in directories durable, for many deliveries at a time:
// those that wait while a directory is being synced share the next sync.
type dirSyncer struct {
	fs   filesystem
	mu   sync.Mutex
	dirs map[string]*dirState // only those with a sync running
}

type dirState struct {
	next *syncRound // waiting for the running sync to end; nil: nobody
}

type syncRound struct {
	done chan struct{}
	err  error
}

func newDirSyncer(fsys filesystem) *dirSyncer {
	return &dirSyncer{fs: fsys, dirs: make(map[string]*dirState)}
}

// sync returns once a sync of dir that began after the call has ended.
func (d *dirSyncer) sync(dir string) error {
	d.mu.Lock()
	st, running := d.dirs[dir]
	if !running {
		st = &dirState{}
		d.dirs[dir] = st
		d.mu.Unlock()
		err := d.fs.SyncDir(dir)
		d.finish(dir, st)
		return err
	}
	if st.next == nil {
		st.next = &syncRound{done: make(chan struct{})}
	}
	round := st.next
	d.mu.Unlock()
	<-round.done
	return round.err
}

// finish starts the round that gathered meanwhile, or forgets the directory.
func (d *dirSyncer) finish(dir string, st *dirState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	round := st.next
	st.next = nil
	if round == nil {
		delete(d.dirs, dir)
		return
	}
	go func() {
		round.err = d.fs.SyncDir(dir)
		close(round.done)
		d.finish(dir, st)
	}()
}
