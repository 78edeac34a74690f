package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/config"
)

// importer makes the import subcommand.
func (e *editor) importer(k provision.Kind, long string) *cobra.Command {
	var o provision.ImportOptions
	var skip, replace, seal bool
	columns := strings.Join(k.Columns, ", ")
	cmd := &cobra.Command{
		Use:   "import FILE.csv",
		Short: "Add many rows from a CSV file (- is standard input)",
		Long: fmt.Sprintf(`Import adds the lines of a CSV file (RFC 4180). Its first line names the columns:
%s; needed: %s.
%s

All lines are stored in one step, or none: every bad line is named, and nothing was
changed. With --keep-going the good lines are stored, in one step too. A line whose
row is there already is a bad one, unless --skip-existing or --replace says otherwise.`,
			columns, strings.Join(k.Needs, ", "), long),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case skip:
				o.Existing = provision.SkipExisting
			case replace:
				o.Existing = provision.ReplaceExisting
			}
			if seal {
				var err error
				if o.Seal, err = e.sealer(); err != nil {
					return err
				}
			}
			cfg, err := e.g.load()
			if err != nil {
				return err
			}
			o.Dialect = cfg.Dialect
			return e.within(context.Background(), cfg, func(ctx context.Context, db *provision.DB) error {
				return e.importFile(ctx, cmd, db, k, args[0], o)
			})
		},
	}
	cmd.Flags().BoolVar(&o.KeepGoing, "keep-going", false, "store the good lines when others are bad")
	cmd.Flags().BoolVar(&skip, "skip-existing", false, "leave rows alone that are there already")
	cmd.Flags().BoolVar(&replace, "replace", false, "replace rows that are there already")
	cmd.MarkFlagsMutuallyExclusive("skip-existing", "replace")
	if k.Seals {
		cmd.Flags().BoolVar(&seal, "seal", false, "seal the private keys, see tabard seal")
	}
	return cmd
}

func (e *editor) importFile(ctx context.Context, cmd *cobra.Command, db *provision.DB, k provision.Kind, file string, o provision.ImportOptions) error {
	in, size, err := openInput(cmd, file)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	o.Dir = filepath.Dir(file)
	counted := &countingReader{r: in}
	bar := newProgressLine(cmd.ErrOrStderr())
	o.Progress = func(p provision.Progress) {
		show := bar.show
		if p.Storing {
			show = bar.put // nothing follows for a while
		}
		show(importLine(p, counted.n.Load(), size))
	}
	done, err := db.Import(ctx, k, counted, o)
	bar.clear()
	for _, b := range done.BadLines {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s:%d: %v\n", file, b.Line, b.Err)
	}
	switch {
	case errors.Is(err, provision.ErrBadLines) && done.Bad > int64(len(done.BadLines)):
		return exitf(exDataErr, "%s: more than %d bad lines: %w", file, len(done.BadLines), provision.ErrBadLines)
	case errors.Is(err, provision.ErrBadLines):
		return exitf(exDataErr, "%s: %d bad lines: %w", file, done.Bad, provision.ErrBadLines)
	case err != nil:
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := e.printImported(cmd, done); err != nil || done.Bad == 0 {
		return err
	}
	return exitf(exDataErr, "%s: %d bad lines were left out", file, done.Bad)
}

func (e *editor) printImported(cmd *cobra.Command, done provision.Imported) error {
	if e.g.json {
		return printJSON(cmd.OutOrStdout(), done)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d added, %d replaced, %d skipped\n", done.Added, done.Replaced, done.Skipped)
	return err
}

// importLine is what the terminal shows of an import.
func importLine(p provision.Progress, read, size int64) string {
	switch {
	case p.Storing:
		return fmt.Sprintf("storing %d lines", p.Lines)
	case size > 0:
		return fmt.Sprintf("%s %d lines", barOf(float64(read)/float64(size)), p.Lines)
	}
	return fmt.Sprintf("%d lines", p.Lines)
}

// openInput opens a file, or standard input for "-". The size is 0 where it is
// not known.
func openInput(cmd *cobra.Command, file string) (io.ReadCloser, int64, error) {
	if file == "-" {
		return io.NopCloser(cmd.InOrStdin()), 0, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, withCode(exNoInput, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	if info.IsDir() {
		return nil, 0, errors.Join(exitf(exNoInput, "%s: is a directory", file), f.Close())
	}
	if !info.Mode().IsRegular() {
		return f, 0, nil
	}
	return f, info.Size(), nil
}

// readInput reads a text of the size of a configuration, from standard input for
// "-".
func readInput(cmd *cobra.Command, file string) (string, error) {
	if file != "-" {
		text, err := config.ReadFile(file)
		return string(text), withCode(exNoInput, err)
	}
	text, err := io.ReadAll(cmd.InOrStdin())
	return string(text), withCode(exIOErr, err)
}

// countingReader counts what is read of it.
type countingReader struct {
	r io.Reader
	n atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
