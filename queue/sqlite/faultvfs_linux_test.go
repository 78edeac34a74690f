package sqlite

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// vfs stands between SQLite and its own VFS: what SQLite does to its files goes
// through a machine. Locks and shared memory are left as they are.
//
// The files are SQLite's own, with some of their methods replaced. The methods are
// closures, which SQLite keeps as numbers: hooks keeps them from being collected.
type vfs struct {
	m    *machine
	name string
	real *sqlite3.Tsqlite3_vfs

	open  func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32
	del   func(tls *libc.TLS, vfs, name uintptr, dirSync int32) int32
	close func(tls *libc.TLS, file uintptr) int32
	read  func(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32
	write func(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32
	cut   func(tls *libc.TLS, file uintptr, size int64) int32
	sync  func(tls *libc.TLS, file uintptr, flags int32) int32

	mu    sync.Mutex
	files map[uintptr]vfsFile
	hooks map[uintptr]uintptr // methods of SQLite's own, and ours in their place
}

type vfsFile struct {
	path    string
	methods uintptr
	log     bool // a log or journal, whose first sync is one of its directory, too
	synced  bool
}

// at is what is at an address that is not Go's.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// call is the function that SQLite knows as p.
func call[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

// number is what SQLite knows a function as.
func number[F any](f *F) uintptr { return *(*uintptr)(unsafe.Pointer(f)) }

// newVFS registers a VFS for the rest of the test.
func newVFS(t testing.TB, m *machine) *vfs {
	t.Helper()
	tls := libc.NewTLS()
	v := &vfs{m: m, name: "fault-" + t.Name(), files: make(map[uintptr]vfsFile), hooks: make(map[uintptr]uintptr)}
	v.real = at[sqlite3.Tsqlite3_vfs](sqlite3.Xsqlite3_vfs_find(tls, 0))
	cname, err := libc.CString(v.name)
	if err != nil {
		t.Fatal(err)
	}
	p := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(*v.real)))
	own := at[sqlite3.Tsqlite3_vfs](p)
	*own = *v.real
	own.FzName, own.FpNext = cname, 0
	v.open, v.del, v.close, v.read, v.write, v.cut, v.sync = v.onOpen, v.onDelete, v.onClose, v.onRead, v.onWrite, v.onTruncate, v.onSync
	own.FxOpen, own.FxDelete = number(&v.open), number(&v.del)
	if rc := sqlite3.Xsqlite3_vfs_register(tls, p, 0); rc != sqlite3.SQLITE_OK {
		t.Fatalf("vfs: %d", rc)
	}
	t.Cleanup(func() {
		sqlite3.Xsqlite3_vfs_unregister(tls, p)
		runtime.KeepAlive(v) // SQLite alone refers to it, in numbers
		tls.Close()          // memory stays: connections of a broken store are never closed
	})
	return v
}

func (v *vfs) onOpen(tls *libc.TLS, self, name, file uintptr, flags int32, out uintptr) int32 {
	path := ""
	if name != 0 {
		path = libc.GoString(name)
	}
	_, missing := os.Stat(path)
	rc := call[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](v.real.FxOpen)(tls, self, name, file, flags, out)
	methods := at[uintptr](file)
	if rc != sqlite3.SQLITE_OK || path == "" || *methods == 0 {
		return rc
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	created := missing != nil
	v.files[file] = vfsFile{
		path: path, methods: *methods,
		log: created && flags&(sqlite3.SQLITE_OPEN_WAL|sqlite3.SQLITE_OPEN_MAIN_JOURNAL) != 0,
	}
	*methods = v.hook(tls, *methods)
	if created {
		v.m.record(step{kind: didCreate, path: path})
	}
	return rc
}

// hook returns methods with ours in them.
func (v *vfs) hook(tls *libc.TLS, methods uintptr) uintptr {
	if p, ok := v.hooks[methods]; ok {
		return p
	}
	p := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	own := at[sqlite3.Tsqlite3_io_methods](p)
	*own = *at[sqlite3.Tsqlite3_io_methods](methods)
	own.FxClose, own.FxRead, own.FxWrite = number(&v.close), number(&v.read), number(&v.write)
	own.FxTruncate, own.FxSync = number(&v.cut), number(&v.sync)
	v.hooks[methods] = p
	return p
}

func (v *vfs) file(file uintptr) (vfsFile, *sqlite3.Tsqlite3_io_methods) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.files[file]
	return f, at[sqlite3.Tsqlite3_io_methods](f.methods)
}

func (v *vfs) onClose(tls *libc.TLS, file uintptr) int32 {
	f, real := v.file(file)
	v.mu.Lock()
	delete(v.files, file)
	*at[uintptr](file) = f.methods
	v.mu.Unlock()
	return call[func(*libc.TLS, uintptr) int32](real.FxClose)(tls, file)
}

func (v *vfs) onDelete(tls *libc.TLS, self, name uintptr, dirSync int32) int32 {
	path := libc.GoString(name)
	rc := call[func(*libc.TLS, uintptr, uintptr, int32) int32](v.real.FxDelete)(tls, self, name, dirSync)
	if rc == sqlite3.SQLITE_OK {
		v.m.record(step{kind: didRemove, path: path})
		if dirSync != 0 {
			v.m.record(step{kind: didSyncDir, path: dirOf(path)})
		}
	}
	return rc
}

func (v *vfs) onRead(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 {
	_, real := v.file(file)
	if v.m.ask(reads) != nil {
		return sqlite3.SQLITE_IOERR_READ
	}
	return call[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](real.FxRead)(tls, file, buf, n, off)
}

func (v *vfs) onWrite(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 {
	f, real := v.file(file)
	write := call[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](real.FxWrite)
	data := unsafe.Slice(at[byte](buf), n)
	switch v.m.ask(writes) {
	case nil:
	case errShort: // as SQLite sees a write that the kernel cuts
		write(tls, file, buf, n/2, off)
		v.m.record(step{kind: didWrite, path: f.path, off: off, data: data[:n/2]})
		return sqlite3.SQLITE_FULL
	case errFull:
		return sqlite3.SQLITE_FULL
	default:
		return sqlite3.SQLITE_IOERR_WRITE
	}
	rc := write(tls, file, buf, n, off)
	if rc == sqlite3.SQLITE_OK {
		v.m.record(step{kind: didWrite, path: f.path, off: off, data: data})
	}
	return rc
}

func (v *vfs) onTruncate(tls *libc.TLS, file uintptr, size int64) int32 {
	f, real := v.file(file)
	rc := call[func(*libc.TLS, uintptr, int64) int32](real.FxTruncate)(tls, file, size)
	if rc == sqlite3.SQLITE_OK {
		v.m.record(step{kind: didTruncate, path: f.path, off: size})
	}
	return rc
}

func (v *vfs) onSync(tls *libc.TLS, file uintptr, flags int32) int32 {
	f, _ := v.file(file)
	if v.m.ask(syncs) != nil {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	// The disk itself is not asked: nobody turns this machine off.
	v.m.record(step{kind: didSync, path: f.path})
	if f.log && !f.synced {
		v.m.record(step{kind: didSyncDir, path: dirOf(f.path)})
		v.mu.Lock()
		f.synced = true
		v.files[file] = f
		v.mu.Unlock()
	}
	return sqlite3.SQLITE_OK
}
