package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/emersion/go-smtp"
)

// filesServer is the hidden argument that makes bench a server that keeps each message
// in a file, as Postfix does, and does nothing else: the floor of that way.
const filesServer = "files-server"

// filing is a session of such a server.
type filing struct {
	discarding
	dir  string
	last *atomic.Int64
}

// Data implements smtp.Session: the file and, with a journaled file system, its name
// are on disk when it returns.
func (f filing) Data(r io.Reader) error {
	name := filepath.Join(f.dir, strconv.FormatInt(f.last.Add(1), 10))
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, r)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}

// runFiles serves at addr with its files below dir.
func runFiles(dir, addr string) error {
	spool := filepath.Join(dir, "spool")
	if err := os.Mkdir(spool, 0o700); err != nil {
		return err
	}
	last := new(atomic.Int64)
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return filing{dir: spool, last: last}, nil }))
	s.Domain = "files.example"
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	_, _ = fmt.Println("ready")
	return s.Serve(l)
}
