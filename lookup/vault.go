package lookup

import (
	"crypto"
	"encoding/pem"
	"fmt"
	"log/slog"
	"sync"

	"tabard/internal/config"
	"tabard/internal/sealing"
	"tabard/table"
)

// vault opens private keys that are sealed or encrypted. The files that it needs
// for that are read again when they change; one that cannot be read any more goes on
// serving as it was, so that a start as root may read what later only root could.
type vault struct {
	log   *slog.Logger
	files *pemFiles

	mu      sync.Mutex
	stamp   uint64 // grows with each change
	opener  table.Opener
	master  custodyFile
	phrases custodyFile
}

// custodyFile is a file of `custody`.
type custodyFile struct {
	word  string // of the directive
	path  string // empty: there is none
	text  string // that is in force
	fault error  // why what is there now is not
}

func newVault(c config.Custody, files *pemFiles, log *slog.Logger) *vault {
	v := &vault{
		log: log, files: files,
		master: custodyFile{word: "master-key", path: c.MasterKey}, phrases: custodyFile{word: "passphrases", path: c.Passphrases},
	}
	v.refresh()
	return v
}

// Servable returns a judge of cert answers: whether their keys could be opened and
// used by a server with the same custody files.
func Servable(c config.Custody) func(table.Row) error {
	v := newVault(c, newPEMFiles(), slog.New(slog.DiscardHandler))
	return func(row table.Row) error {
		_, err := v.parseKeyPairs(row)
		return err
	}
}

// Signable returns a judge of dkim answers: the public keys, in the order of the
// answer, of the private ones that a server with the same custody files would sign
// with, or why it could not.
func Signable(c config.Custody) func(table.Row) ([]crypto.PublicKey, error) {
	v := newVault(c, newPEMFiles(), slog.New(slog.DiscardHandler))
	return func(row table.Row) ([]crypto.PublicKey, error) {
		pairs, _, err := v.parseDKIM(row)
		var public []crypto.PublicKey
		for _, p := range pairs {
			public = append(public, p.signer.Public())
		}
		return public, err
	}
}

// refresh reads the files if they changed, and returns a number that is another
// one then: what could not be opened before is worth another try.
func (v *vault) refresh() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.read(&v.master, func(text []byte) error {
		ring, err := sealing.ParseRing(text)
		if err == nil {
			v.opener.Ring = ring
		}
		return err
	})
	v.read(&v.phrases, func(text []byte) error {
		phrases, err := sealing.ParsePassphrases(text)
		if err == nil {
			v.opener.Passphrases = phrases
		}
		return err
	})
	return v.stamp
}

// read takes over what is in a file, if it is new and parse understands it.
func (v *vault) read(f *custodyFile, parse func(text []byte) error) {
	if f.path == "" {
		return
	}
	row, err := v.files.read(f.path)
	if err == nil && row[0] == f.text {
		return
	}
	if err == nil {
		if err = parse([]byte(row[0])); err == nil {
			f.text, f.fault = row[0], nil
			v.stamp++
			return
		}
		err = fmt.Errorf("%s: %w", f.path, err)
	}
	if f.fault == nil || f.fault.Error() != err.Error() {
		v.log.Warn("custody file cannot be used", "custody", f.word, "error", err)
	}
	f.fault = err
}

// faults says which files cannot be used as they are now, and why.
func (v *vault) faults() []custodyFile {
	v.refresh()
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []custodyFile
	for _, f := range []custodyFile{v.master, v.phrases} {
		if f.fault != nil {
			all = append(all, f)
		}
	}
	return all
}

// openers is what opens keys now.
func (v *vault) openers() table.Opener {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.opener
}

// open returns the key in a block, whatever protects it.
func (v *vault) open(b *pem.Block) (crypto.Signer, error) { return v.openers().Open(b) }
