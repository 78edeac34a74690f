package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/config"
	"tabard/internal/sealing"
	"tabard/table"
)

func newSeal(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "seal", "Master keys, which seal private keys in tables")
	cmd.Long = `Seal keeps private keys in the database unreadable: they are sealed with AES-256-GCM
under a master key. Master keys are in the file of custody master-key, which only the
process lookup has to read. The first one in it seals; all of them open.

  tabard seal new-key                 make the file, or put a new key in front
  tabard cert add NAME ... --seal     store a certificate with its key sealed
  tabard dkim add ... --seal          store a key that signs mail, sealed
  tabard seal rotate                  new key, and every sealed key under it

Where several servers share a database, give all of them the new file between
new-key and rotate --keep-key.`
	cmd.AddCommand(e.sealNewKey(), e.sealRotate(), e.sealList())
	return cmd
}

func (e *editor) sealNewKey() *cobra.Command {
	return &cobra.Command{
		Use:   "new-key",
		Short: "Put a new master key in front of the file, which is made if it is missing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := e.g.load()
			if err != nil {
				return err
			}
			ring, err := newMasterKey(cfg)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "master key %s in %s\nKeep a copy in a safe place: without it the keys that it seals are lost.\n", ring.IDs()[0], cfg.Custody.MasterKey)
			return err
		},
	}
}

// masterKeys reads the file of the configuration.
func masterKeys(cfg *config.Config) (*sealing.Ring, error) {
	if cfg.Custody.MasterKey == "" {
		return nil, exitf(exConfig, "the configuration names no file of master keys: custody master-key FILE")
	}
	return readKeys(cfg.Custody.MasterKey, "tabard seal new-key")
}

// readKeys reads a file of keys, which a command makes.
func readKeys(path, command string) (*sealing.Ring, error) {
	text, err := table.ReadPEMFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exitf(exNoInput, "%w: make it with %s", err, command)
	}
	if err != nil {
		return nil, withCode(exNoInput, err)
	}
	ring, err := sealing.ParseRing([]byte(text))
	if err != nil {
		return nil, exitf(exDataErr, "%s: %w", path, err)
	}
	return ring, nil
}

// newMasterKey puts a new key in front of the file.
func newMasterKey(cfg *config.Config) (*sealing.Ring, error) {
	ring, err := masterKeys(cfg)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if ring, err = ring.WithNewKey(); err != nil {
		return nil, err
	}
	return ring, withCode(exCantCreat, writeMasterKeys(cfg, ring))
}

// writeMasterKeys replaces the file in one step. It belongs to whom it belonged
// to before, or to who lookup runs as.
func writeMasterKeys(cfg *config.Config, ring *sealing.Ring) error {
	return writeKeys(cfg.Custody.MasterKey, ring.Text(), func(f *os.File, path string) error { return giveToLookup(f, path, cfg) })
}

// writeKeys replaces a file of keys in one step; give makes it somebody's.
func writeKeys(path string, text []byte, give func(f *os.File, path string) error) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the link stays
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".master-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone after the rename
	_, err = f.Write(text)
	if err == nil {
		err = give(f, path)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// asBefore gives a file the owner and the mode of the one at path, if there is one.
func asBefore(f *os.File, path string) (found bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Getuid() == 0 {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return true, err
		}
	}
	return true, f.Chmod(info.Mode().Perm())
}

func giveToLookup(f *os.File, path string, cfg *config.Config) error {
	if same, err := asBefore(f, path); same || err != nil || os.Getuid() != 0 {
		return err
	}
	id, err := identityOf(cfg, procLookup)
	if err != nil || id.cred == nil {
		return err
	}
	return f.Chown(id.cred.UID, id.cred.GID)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sealer is what seals with the files of a configuration.
func sealer(cfg *config.Config) (provision.Sealer, error) {
	ring, err := masterKeys(cfg)
	if err != nil || cfg.Custody.Passphrases == "" {
		return provision.Sealer{Opener: table.Opener{Ring: ring}}, err
	}
	text, err := table.ReadPEMFile(cfg.Custody.Passphrases)
	if err != nil {
		return provision.Sealer{}, withCode(exNoInput, err)
	}
	phrases, err := sealing.ParsePassphrases([]byte(text))
	return provision.Sealer{Opener: table.Opener{Ring: ring, Passphrases: phrases}}, withCode(exDataErr, err)
}

func (e *editor) sealRotate() *cobra.Command {
	var keep, all, forget bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Seal every sealed key anew, under a new master key",
		Long: `Rotate puts a new master key in front of the file, and seals every sealed private key
of the table under it, in one step. Servers open both the old and the new ones all the
while. With --forget, older master keys that no row needs any more leave the file: make
sure before that no other table and no backup needs them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := e.g.load()
			if err != nil {
				return err
			}
			return e.within(context.Background(), cfg, func(ctx context.Context, db *provision.DB) error {
				if !keep {
					if _, err := newMasterKey(cfg); err != nil {
						return err
					}
				}
				s, err := sealer(cfg)
				if err != nil {
					return err
				}
				done, err := db.Reseal(ctx, s, all)
				if err == nil && forget {
					err = forgetMasterKeys(ctx, cfg, db, s.Ring)
				}
				if err != nil {
					return err
				}
				if e.g.json {
					return printJSON(cmd.OutOrStdout(), done)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d sealed under master key %s, %d left as they were\n", done.Sealed, s.Ring.IDs()[0], done.Left)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-key", false, "no new master key: seal under the first one in the file")
	cmd.Flags().BoolVar(&all, "all", false, "seal private keys too that are not sealed yet")
	cmd.Flags().BoolVar(&forget, "forget", false, "take master keys out of the file that no row needs")
	return cmd
}

// forgetMasterKeys takes keys out of the file that no row is sealed by.
func forgetMasterKeys(ctx context.Context, cfg *config.Config, db *provision.DB, ring *sealing.Ring) error {
	rows, err := db.Protections(ctx)
	if err != nil {
		return err
	}
	needed := make(map[string]bool)
	for _, r := range rows {
		if r.Unknown != nil {
			return exitf(exNoInput, "sealed anew, but no master key was taken out: nobody knows which ones are needed: %w", r.Unknown)
		}
		for _, id := range r.MasterKeys {
			needed[id] = true
		}
	}
	return writeMasterKeys(cfg, ring.Only(func(id string) bool { return needed[id] }))
}

func (e *editor) sealList() *cobra.Command {
	return lister(e, "List how the private keys of certificates and for signing mail are kept", []string{"SERVICE", "ID", "NAME", "KEPT", "MASTER KEY"}, (*provision.DB).Protections,
		func(p provision.Protection) []string {
			id := "-"
			if p.ID != 0 {
				id = strconv.FormatInt(p.ID, 10)
			}
			return []string{p.Service, id, p.Name, p.Kept, dash(strings.Join(p.MasterKeys, ", "))}
		})
}

// sealer is what seals with the files of the editor's configuration.
func (e *editor) sealer() (*provision.Sealer, error) {
	cfg, err := e.g.load()
	if err != nil {
		return nil, err
	}
	s, err := sealer(cfg)
	return &s, err
}

func (e *editor) sealPairs(pairs []provision.Pair) error {
	s, err := e.sealer()
	if err != nil {
		return err
	}
	for i, p := range pairs {
		if pairs[i], err = s.Seal(p); err != nil {
			return withCode(exDataErr, err)
		}
	}
	return nil
}
