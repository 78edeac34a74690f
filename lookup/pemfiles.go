package lookup

import (
	"os"
	"sync"

	"tabard/table"
)

// pemFiles reads PEM files, again only when they changed. It is safe for
// concurrent use.
type pemFiles struct {
	mu    sync.Mutex
	known map[string]pemFile
}

type pemFile struct {
	info os.FileInfo
	text string
}

func newPEMFiles() *pemFiles { return &pemFiles{known: make(map[string]pemFile)} }

// read returns the contents of the files as columns of a row. Only files named
// in the configuration are asked for, so what is kept is bounded.
func (f *pemFiles) read(paths ...string) (table.Row, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	row := make(table.Row, 0, len(paths))
	for _, path := range paths {
		text, err := f.one(path)
		if err != nil {
			return nil, err
		}
		row = append(row, text)
	}
	return row, nil
}

func (f *pemFiles) one(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if k, ok := f.known[path]; ok && os.SameFile(k.info, info) && k.info.Size() == info.Size() && k.info.ModTime().Equal(info.ModTime()) {
		return k.text, nil
	}
	text, err := table.ReadPEMFile(path)
	if err != nil {
		return "", err
	}
	f.known[path] = pemFile{info, text}
	return text, nil
}
