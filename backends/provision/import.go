package provision

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"tabard/internal/config"
)

// Existing says what an import does with a row that is there already.
type Existing int

// By default such a line is an error.
const (
	RefuseExisting  Existing = iota
	SkipExisting             // the row in the database stays
	ReplaceExisting          // the line counts
)

// ImportOptions steer an import.
type ImportOptions struct {
	Existing  Existing
	KeepGoing bool           // store the good lines; else one bad line stops everything
	Dir       string         // that files named by lines are relative to
	Seal      *Sealer        // seals the keys of certificates; nil: they are stored as they are
	Dialect   config.Dialect // of relay URLs; empty: Tabard's own
	Progress  func(Progress) // called now and then, from one goroutine; may be nil
}

// Progress is how far an import is.
type Progress struct {
	Lines   int64 // read and checked so far
	Storing bool  // all of them; they are stored now
}

// BadLine is a line that cannot be imported.
type BadLine struct {
	Line int // of the file, from 1
	Err  error
}

// Imported is what an import did.
type Imported struct {
	Added    int64 `json:"added"`
	Replaced int64 `json:"replaced"` // rows that were changed, or removed for new ones
	Skipped  int64 `json:"skipped"`  // lines whose rows were there
	Bad      int64 `json:"bad"`      // lines
	// BadLines are the first bad lines, in their order.
	BadLines []BadLine `json:"-"`
}

// maxBadLines bounds what is told of bad lines, and how many are met before an
// import that stores all or nothing stops reading.
const maxBadLines = 1000

// ErrBadLines is returned when nothing was stored because of bad lines.
var ErrBadLines = errors.New("nothing was stored")

// Import reads CSV (RFC 4180) with a heading that names the columns, and stores
// its lines as rows of a kind, all in one transaction: servers see all of them or
// none. What it did is returned with an error, too: it names the bad lines.
func (d *DB) Import(ctx context.Context, k Kind, r io.Reader, o ImportOptions) (Imported, error) {
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	in, err := newLines(k, r, o)
	if err != nil {
		return Imported{}, fmt.Errorf("line 1: %w", err)
	}
	s, err := d.stage(ctx, k, in.plan)
	if err != nil {
		return Imported{}, err
	}
	done := Imported{}
	err = s.fill(ctx, in, &done)
	if err == nil {
		o.Progress(Progress{Lines: in.lines, Storing: true})
		err = s.store(ctx, o, &done) // looks for more bad lines first
	}
	if err == nil && o.stops(&done) {
		err = ErrBadLines
	}
	if err != nil {
		done.Added, done.Replaced, done.Skipped = 0, 0, 0
	}
	slices.SortFunc(done.BadLines, func(a, b BadLine) int { return cmp.Compare(a.Line, b.Line) })
	if cerr := s.close(); err != nil {
		err = errors.Join(err, cerr) // else everything is stored
	}
	return done, err
}

// stops reports whether there are bad lines that keep all others from being
// stored.
func (o ImportOptions) stops(done *Imported) bool { return done.Bad > 0 && !o.KeepGoing }

func (i *Imported) bad(line int, err error) {
	i.Bad++
	if len(i.BadLines) < maxBadLines {
		i.BadLines = append(i.BadLines, BadLine{line, err})
	}
}

// lines are the lines of a file.
type lines struct {
	csv   *csv.Reader
	at    heading
	plan  plan
	o     ImportOptions
	lines int64 // read and made so far
}

// newLines reads the heading.
func newLines(k Kind, r io.Reader, o ImportOptions) (*lines, error) {
	in := &lines{csv: csv.NewReader(withoutBOM(r)), at: heading{}, o: o}
	head, err := in.csv.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("empty: the first line names the columns (%s)", strings.Join(k.Columns, ","))
	}
	if err != nil {
		return nil, err
	}
	for i, column := range head {
		column = strings.ToLower(strings.TrimSpace(column))
		if !slices.Contains(k.Columns, column) {
			return nil, fmt.Errorf("unknown column %q: the columns are %s", column, strings.Join(k.Columns, ","))
		}
		if in.at.has(column) {
			return nil, fmt.Errorf("column %s twice", column)
		}
		in.at[column] = i
	}
	for _, column := range k.Needs {
		if !in.at.has(column) {
			return nil, fmt.Errorf("no column %s: the first line names the columns", column)
		}
	}
	in.plan, err = k.plan(in.at)
	return in, err
}

// withoutBOM leaves out what spreadsheets put in front of UTF-8.
func withoutBOM(r io.Reader) io.Reader {
	in := bufio.NewReader(r)
	if mark, err := in.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = in.Discard(len(mark)) // they are in the buffer
	}
	return in
}

// row is a line that was read: what is stored of it, or why it cannot be.
type row struct {
	line   int
	texts  []string
	values []any
	err    error
}

// read sends the lines in bundles until the end of the file.
func (in *lines) read(ctx context.Context, out chan<- []row) error {
	size := 256
	if in.plan.slow {
		size = 1
	}
	bundle := make([]row, 0, size)
	for {
		texts, err := in.csv.Read()
		var syntax *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return send(ctx, out, bundle)
		case errors.As(err, &syntax):
			bundle = append(bundle, row{line: syntax.StartLine, err: syntax.Err})
		case err != nil:
			return err
		default:
			line, _ := in.csv.FieldPos(0)
			bundle = append(bundle, row{line: line, texts: texts})
		}
		if len(bundle) < size {
			continue
		}
		if err := send(ctx, out, bundle); err != nil {
			return err
		}
		bundle = make([]row, 0, size)
	}
}

func send(ctx context.Context, out chan<- []row, bundle []row) error {
	select {
	case out <- bundle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work makes values of lines. Passwords are hashed here, on every core.
func (in *lines) work(ctx context.Context, from <-chan []row, to chan<- []row) error {
	for bundle := range from {
		for i := range bundle {
			r := &bundle[i]
			for n := 0; n < len(r.texts) && r.err == nil; n++ {
				if r.err = plainText(r.texts[n], 0); r.err != nil {
					r.err = fmt.Errorf("field %d: %w", n+1, r.err)
				}
			}
			if r.err == nil {
				r.values, r.err = in.plan.row(fields{in.at, r.texts, in.o.Dir, in.o.Seal, in.o.Dialect})
			}
		}
		if err := send(ctx, to, bundle); err != nil {
			return err
		}
	}
	return nil
}

// errEnough stops reading: there are bad lines enough to see what is wrong.
var errEnough = errors.New("too many bad lines")

// each calls f for the bundles, in any order.
func (in *lines) each(ctx context.Context, f func([]row) error) error {
	g, ctx := errgroup.WithContext(ctx)
	unread, made := make(chan []row, runtime.GOMAXPROCS(0)), make(chan []row, runtime.GOMAXPROCS(0))
	g.Go(func() error {
		defer close(unread)
		return in.read(ctx, unread)
	})
	var workers errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() error { return in.work(ctx, unread, made) })
	}
	g.Go(func() error {
		defer close(made)
		return workers.Wait()
	})
	g.Go(func() error {
		for bundle := range made {
			if err := f(bundle); err != nil {
				return err
			}
			in.lines += int64(len(bundle))
			in.o.Progress(Progress{Lines: in.lines})
		}
		return nil
	})
	return g.Wait()
}
