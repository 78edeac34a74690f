package deliver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tabard/internal/address"
)

// maildir delivers into a maildir: the file is written and synced in tmp, named
// in new, and that name made durable.
func (a *agent) maildir(ctx context.Context, p *parcel) error {
	dir, err := a.folder(p)
	if err != nil {
		return err
	}
	err = a.store(ctx, p, dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = a.makeMaildir(dir); err == nil {
			err = a.store(ctx, p, dir)
		}
	}
	if err != nil {
		return fmt.Errorf("maildir: %w", err)
	}
	return nil
}

// folder chooses the maildir or, as Maildir++ lays them out, the folder in it.
// Junk goes to .Junk, which is made; a tag chooses a folder that exists.
func (a *agent) folder(p *parcel) (string, error) {
	base := p.how.Path
	if err := checkPath("maildir", base); err != nil {
		return "", err
	}
	if p.how.Junk && p.seen.spam {
		return filepath.Join(base, ".Junk"), nil
	}
	ext := envValue(p.how.Env, "EXTENSION")
	if ext == "" || ext[0] == '.' || len(ext) > 200 || strings.ContainsAny(ext, "/\x00") {
		return base, nil
	}
	sub := filepath.Join(base, "."+ext)
	if info, err := a.fs.Stat(sub); err == nil && info.IsDir() {
		return sub, nil
	}
	return base, nil
}

// store writes the message. Whatever fails, nothing is left in new that was
// not promised.
func (a *agent) store(ctx context.Context, p *parcel, dir string) error {
	name := uniqueName(time.Now(), a.host)
	tmp := filepath.Join(dir, "tmp", name)
	f, err := a.fs.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = p.writeTo(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	final := filepath.Join(dir, "new", name)
	if err == nil {
		err = a.fs.Rename(tmp, final)
	}
	if err != nil {
		return errors.Join(err, a.remove(tmp))
	}
	if err := a.dirs.sync(filepath.Dir(final)); err != nil {
		return errors.Join(fmt.Errorf("sync %s: %w", filepath.Dir(final), err), a.remove(final))
	}
	return nil
}

// remove takes a file away that is not delivered; that it is gone is fine.
func (a *agent) remove(name string) error {
	if err := a.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// makeMaildir makes a maildir. tmp comes last, when everything else is durable:
// a delivery that finds tmp need not ask whether the rest will still be there
// after a crash.
func (a *agent) makeMaildir(dir string) error {
	if err := makeDirs(a.fs, dir); err != nil {
		return err
	}
	for _, sub := range []string{"new", "cur"} {
		if err := a.makeSub(filepath.Join(dir, sub)); err != nil {
			return err
		}
	}
	if err := a.fs.SyncDir(dir); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return a.makeSub(filepath.Join(dir, "tmp"))
}

func (a *agent) makeSub(path string) error {
	if err := a.fs.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return checkDir(a.fs, path)
}

// uniqueName is a name for a maildir file: seconds, then what makes it unique
// (microseconds, process, random), then the host (https://cr.yp.to/proto/maildir.html).
func uniqueName(now time.Time, host string) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // crypto/rand never fails
	return fmt.Sprintf("%d.M%06dP%dR%s.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), hex.EncodeToString(random[:]), host)
}

// fileHost is a host name as the maildir convention writes it.
func fileHost(name string) string {
	name = strings.ReplaceAll(address.OneLine(name, 150), " ", "_")
	if name == "" {
		return "localhost"
	}
	return strings.NewReplacer("/", `\057`, ":", `\072`).Replace(name)
}

// envValue finds a variable in NAME=VALUE form.
func envValue(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
