package lookup

import (
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"tabard/internal/config"
	"tabard/internal/sealing"
	"tabard/table"
)

// vault opens private keys that are sealed, encrypted, or in another file. The
// files that it needs for that are read again when they change; one that cannot be
// read any more goes on serving as it was, so that a start as root may read what
// later only root could.
type vault struct {
	log     *slog.Logger
	paths   config.Custody
	files   *pemFiles
	mu      sync.Mutex
	stamp   uint64 // grows with each change
	texts   [2]string
	ring    *sealing.Ring
	phrases [][]byte
	faults  [2]error
}

func newVault(c config.Custody, files *pemFiles, log *slog.Logger) *vault {
	v := &vault{log: log, paths: c, files: files}
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

// refresh reads the files if they changed, and returns a number that is another
// one then: what could not be opened before is worth another try.
func (v *vault) refresh() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.read(0, "master-key", v.paths.MasterKey, func(text string) error {
		ring, err := sealing.ParseRing([]byte(text))
		if err == nil {
			v.ring = ring
		}
		return err
	})
	v.read(1, "passphrases", v.paths.Passphrases, func(text string) error {
		phrases, err := sealing.ParsePassphrases([]byte(text))
		if err == nil {
			v.phrases = phrases
		}
		return err
	})
	return v.stamp
}

func (v *vault) read(i int, what, path string, parse func(text string) error) {
	if path == "" {
		return
	}
	row, err := v.files.read(path)
	if err == nil && row[0] == v.texts[i] {
		return
	}
	if err == nil {
		if err = parse(row[0]); err == nil {
			v.texts[i] = row[0]
			v.stamp++
			v.faults[i] = nil
			return
		}
		err = fmt.Errorf("%s: %w", path, err)
	}
	if v.faults[i] == nil || v.faults[i].Error() != err.Error() {
		v.log.Warn("custody file cannot be used", "custody", what, "error", err)
	}
	v.faults[i] = err
}

// fault says why the file of master keys (0) or of passphrases (1) cannot be used
// as it is now.
func (v *vault) fault(i int) error {
	v.refresh()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.faults[i]
}

// open returns the key in a block, whatever protects it.
func (v *vault) open(b *pem.Block) (crypto.PrivateKey, error) {
	v.mu.Lock()
	ring, phrases := v.ring, v.phrases
	v.mu.Unlock()
	switch {
	case b.Type == sealing.BlockType:
		if ring == nil {
			return nil, errors.New("private key is sealed, and custody master-key names no file that opens it")
		}
		der, err := ring.Open(b)
		if err != nil {
			return nil, err
		}
		defer clear(der)
		return table.ParsePrivateKey(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	case b.Type == sealing.EncryptedType:
		if len(phrases) == 0 {
			return nil, errors.New("private key is encrypted, and custody passphrases names no file that opens it")
		}
		return sealing.Decrypt(b, phrases)
	case len(b.Headers) > 0:
		return nil, errors.New("private key is encrypted in the way of RFC 1421, which is not safe; make PKCS#8 of it: openssl pkcs8 -topk8")
	}
	return table.ParsePrivateKey(b)
}
