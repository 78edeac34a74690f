package sqlite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"tabard/queue"
)

// The form of SQLite's write-ahead log (https://sqlite.org/fileformat2.html#walformat).
const (
	logHead  = 32 // bytes
	logMagic = 0x377f0682
	frame    = 24 // bytes, before its page
)

// checkLog looks for damage in the log at path, of which SQLite says nothing: it takes the
// first frame that is not sound for the end, as what a power loss left unfinished is. But a
// commit is synced before anything is written after it. So where a commit and then a sound
// frame of another page follow, messages that were acknowledged are behind the damage.
func checkLog(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	l, err := newLogReader(r)
	if err != nil || l == nil {
		return err
	}
	bad, commit := -1, uint32(0) // the page of a commit behind the damage
	for n := 0; ; n++ {
		fr, err := l.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		switch {
		case bad < 0 && !fr.sound:
			bad = n
		case bad >= 0 && fr.sound && commit != 0 && fr.page != commit:
			return fmt.Errorf("%w: its log %s is damaged at byte %d, and more follows", queue.ErrCorrupt, path, logHead+int64(bad)*int64(len(l.buf)))
		}
		if bad >= 0 && fr.ours && fr.commit {
			commit = fr.page
		}
	}
}

// logReader reads a log frame by frame.
type logReader struct {
	r     io.Reader
	order binary.ByteOrder // of the sums
	salt  [8]byte
	s     [2]uint32 // the sum before the next frame, as it is stored
	buf   []byte
}

// newLogReader returns nil for a log that has no header: there is nothing in it.
func newLogReader(r io.Reader) (*logReader, error) {
	var head [logHead]byte
	if _, err := io.ReadFull(r, head[:]); err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	magic, size := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[8:])
	if magic&^1 != logMagic || size < 512 || size > 65536 {
		return nil, nil
	}
	l := &logReader{r: r, order: binary.LittleEndian, buf: make([]byte, frame+size)}
	if magic&1 != 0 {
		l.order = binary.BigEndian
	}
	copy(l.salt[:], head[16:24])
	l.s = [2]uint32{binary.BigEndian.Uint32(head[24:]), binary.BigEndian.Uint32(head[28:])}
	return l, nil
}

// logFrame is what a frame says.
type logFrame struct {
	page   uint32
	commit bool
	ours   bool // of the present log, not of one before
	sound  bool // and as it was written
}

// next returns io.EOF at the end, and before a part of a frame.
func (l *logReader) next() (logFrame, error) {
	if _, err := io.ReadFull(l.r, l.buf); err == io.ErrUnexpectedEOF {
		return logFrame{}, io.EOF
	} else if err != nil {
		return logFrame{}, err
	}
	b := l.buf
	fr := logFrame{page: binary.BigEndian.Uint32(b), commit: binary.BigEndian.Uint32(b[4:]) != 0, ours: string(b[8:16]) == string(l.salt[:])}
	sum := l.sum(l.sum(l.s, b[:8]), b[frame:])
	l.s = [2]uint32{binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])}
	fr.sound = fr.ours && fr.page != 0 && sum == l.s
	return fr, nil
}

func (l *logReader) sum(s [2]uint32, p []byte) [2]uint32 {
	for ; len(p) >= 8; p = p[8:] {
		s[0] += l.order.Uint32(p) + s[1]
		s[1] += l.order.Uint32(p[4:]) + s[0]
	}
	return s
}
