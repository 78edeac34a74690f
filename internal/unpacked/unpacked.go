// Package unpacked finds the Debian packages that ./test unpacks below .scratch
// instead of installing them, and has what every test server needs beside that:
// an address to listen on, a process with a log, and to be awaited.
package unpacked

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Find returns the directory of the package called name: what the environment
// variable env says, or .scratch/NAME at the top of the repository, or "/" when
// it is installed. A directory counts when it has the file program.
func Find(env, name, program string) (string, error) {
	var places []string
	if dir := os.Getenv(env); dir != "" {
		places = append(places, dir)
	} else if top, err := repository(); err == nil {
		places = append(places, filepath.Join(top, ".scratch", name))
	}
	for _, dir := range append(places, "/") {
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return filepath.Abs(dir)
		}
	}
	return "", fmt.Errorf("no %s in %q: run ./test, which unpacks it", name, places)
}

// repository finds the directory of go.mod, upwards from the working directory.
func repository() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, serr := os.Stat(filepath.Join(dir, "go.mod")); serr == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", os.ErrNotExist
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// Libraries returns the directories of the shared libraries that were unpacked
// into root, relative to it.
func Libraries(root string) []string {
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // the pattern is in order
		for _, dir := range found {
			if rel, err := filepath.Rel(root, dir); err == nil {
				dirs = append(dirs, rel)
			}
		}
	}
	return dirs
}

// FreeAddr returns a loopback address that nothing listened on a moment ago.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Greeted connects to an SMTP server and says QUIT to its greeting.
func Greeted(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	code := make([]byte, 4)
	if _, err := io.ReadFull(conn, code); err != nil {
		return err
	}
	if string(code) != "220 " {
		return fmt.Errorf("greeting begins with %q", code)
	}
	_, err = io.WriteString(conn, "QUIT\r\n")
	return err
}

// Poll calls done until it says so or fails, or the server's end or the context
// is there first. Nothing tells of another program's files and sockets.
func Poll(ctx context.Context, ended <-chan struct{}, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok {
			return err
		}
		select {
		case <-ended:
			return errors.Join(errors.New("the server ended"), err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Maildir returns the messages that arrived in a Maildir, in order of file
// names; none when it is not there yet.
func Maildir(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "new"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, "new", e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, string(text))
	}
	return out, nil
}

// AwaitMaildir waits until at least n messages are in a Maildir, and returns them
// all; it gives up as Poll does.
func AwaitMaildir(ctx context.Context, ended <-chan struct{}, dir string, n int) (got []string, err error) {
	err = Poll(ctx, ended, func() (bool, error) {
		var err error
		got, err = Maildir(dir)
		return err != nil || len(got) >= n, err
	})
	if err != nil {
		err = fmt.Errorf("%d of %d messages arrived: %w", len(got), n, err)
	}
	return got, err
}
