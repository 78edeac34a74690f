package provision

import (
	"errors"
	"os"
)

// private creates an empty file that only its owner can read, because the
// database holds private keys and passwords. SQLite gives its companions (-wal,
// -shm) the same mode. An existing file keeps the mode that it has.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}
