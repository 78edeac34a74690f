package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"tabard/queue"
)

// An export is a tar file. Its first member, export.json, is an archiveHead; then each
// message has two, ID.json, an archiveMessage, and ID.eml, its body; and the last one,
// end.json, is an archiveEnd, without which the file was cut. The names are for people:
// what a member is follows from its ending and its place alone.

const (
	archiveFormat = "tabard queue export"
	archiveFirst  = "export.json"
	archiveLast   = "end.json"
	// maxArchiveJSON is more than the most envelopes of a message take, in bytes.
	maxArchiveJSON = 128 << 20
)

type archiveHead struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Export  string    `json:"export"` // its id
	Host    string    `json:"host"`
	Created time.Time `json:"created"`
	Moved   bool      `json:"moved"` // what is here was removed there
}

type archiveMessage struct {
	Export    string           `json:"export"`
	Exported  time.Time        `json:"exported"`
	SHA256    string           `json:"sha256"` // of the body, hexadecimal
	Message   queue.Message    `json:"message"`
	Envelopes []queue.Portable `json:"envelopes"`
}

type archiveEnd struct {
	Export    string `json:"export"`
	Messages  int    `json:"messages"`
	Envelopes int    `json:"envelopes"`
}

// archiveWriter writes an export.
type archiveWriter struct {
	tar  *tar.Writer
	head archiveHead
	end  archiveEnd
}

func newArchive(w io.Writer, head archiveHead) (*archiveWriter, error) {
	a := &archiveWriter{tar: tar.NewWriter(w), head: head}
	a.head.Format, a.head.Version = archiveFormat, 1
	a.end.Export = head.Export
	return a, a.json(archiveFirst, head.Created, a.head)
}

func (a *archiveWriter) member(name string, size int64, at time.Time) error {
	return a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: at.Truncate(time.Second)})
}

func (a *archiveWriter) json(name string, at time.Time, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if err := a.member(name, int64(len(text)), at); err != nil {
		return err
	}
	_, err = a.tar.Write(text)
	return err
}

// bodyError is an error that is about one body, not about the file.
type bodyError struct{ error }

func (e bodyError) Unwrap() error { return e.error }

// add writes a message. The body is read twice: its checksum stands before it.
func (a *archiveWriter) add(m queue.Message, list []queue.Portable, body queue.Body) error {
	sum := sha256.New()
	if n, err := io.Copy(sum, io.NewSectionReader(body, 0, body.Size())); err != nil || n != m.Size {
		return bodyError{fmt.Errorf("%d bytes of its body, want %d: %w", n, m.Size, errors.Join(err, io.ErrUnexpectedEOF))}
	}
	about := archiveMessage{
		Export: a.head.Export, Exported: time.Now(), SHA256: hex.EncodeToString(sum.Sum(nil)), Message: m, Envelopes: list,
	}
	if err := a.json(m.ID.String()+".json", m.Created, about); err != nil {
		return err
	}
	if err := a.member(m.ID.String()+".eml", m.Size, m.Created); err != nil {
		return err
	}
	if _, err := io.Copy(a.tar, io.NewSectionReader(body, 0, body.Size())); err != nil {
		return err
	}
	a.end.Messages++
	a.end.Envelopes += len(list)
	return nil
}

func (a *archiveWriter) close() error {
	if err := a.json(archiveLast, time.Now(), a.end); err != nil {
		return err
	}
	return a.tar.Close()
}

// archiveReader reads an export that may be cut, or anybody's.
type archiveReader struct {
	tar   *tar.Reader
	head  archiveHead
	whole int // messages that were read
}

// errCut says where a file ends before its end.
type errCut struct {
	where string
	err   error
}

func (e *errCut) Error() string { return fmt.Sprintf("the file ends %s: %v", e.where, e.err) }
func (e *errCut) Unwrap() error { return e.err }

func openArchive(r io.Reader) (*archiveReader, error) {
	a := &archiveReader{tar: tar.NewReader(r)}
	h, err := a.next()
	if err != nil {
		return nil, fmt.Errorf("this is no export of a queue: %w", err)
	}
	if h.Name != archiveFirst {
		return nil, fmt.Errorf("this is no export of a queue: its first member is %.60q, want %s", h.Name, archiveFirst)
	}
	if err := a.json(h, &a.head); err != nil {
		return nil, err
	}
	if a.head.Format != archiveFormat || a.head.Version != 1 {
		return nil, fmt.Errorf("%.60q version %d: want %q version 1", a.head.Format, a.head.Version, archiveFormat)
	}
	return a, nil
}

// next returns the head of the next member.
func (a *archiveReader) next() (*tar.Header, error) {
	h, err := a.tar.Next()
	switch {
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &errCut{fmt.Sprintf("after %d whole messages", a.whole), io.ErrUnexpectedEOF}
	case err != nil:
		return nil, fmt.Errorf("after %d messages: %w", a.whole, err)
	case h.Typeflag != tar.TypeReg:
		return nil, fmt.Errorf("after %d messages: member %.60q is no plain file", a.whole, h.Name)
	}
	return h, nil
}

func (a *archiveReader) json(h *tar.Header, v any) error {
	if h.Size > maxArchiveJSON {
		return fmt.Errorf("member %.60q has %d bytes, want up to %d", h.Name, h.Size, maxArchiveJSON)
	}
	text, err := io.ReadAll(a.tar)
	if err != nil {
		return a.cut(h, err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("member %.60q: %w", h.Name, err)
	}
	return nil
}

// cut says where the file ends, if it does.
func (a *archiveReader) cut(h *tar.Header, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &errCut{fmt.Sprintf("within %.60q, after %d whole messages", h.Name, a.whole), err}
	}
	return fmt.Errorf("member %.60q: %w", h.Name, err)
}

// message returns what is known of the next message; nil: there is none.
func (a *archiveReader) message() (*archiveMessage, error) {
	h, err := a.next()
	if err != nil {
		return nil, err
	}
	if h.Name == archiveLast {
		var end archiveEnd
		if err := a.json(h, &end); err != nil {
			return nil, err
		}
		if end.Messages != a.whole {
			return nil, fmt.Errorf("%d messages, but the end of the file tells of %d", a.whole, end.Messages)
		}
		return nil, nil
	}
	if !strings.HasSuffix(h.Name, ".json") {
		return nil, fmt.Errorf("after %d messages: member %.60q is not in its place", a.whole, h.Name)
	}
	m := &archiveMessage{}
	return m, a.json(h, m)
}

// body returns the body of a message. Its last byte is given only with the error
// that says whether it is what was exported.
func (a *archiveReader) body(m *archiveMessage) (*archiveBody, error) {
	h, err := a.next()
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(h.Name, ".eml") {
		return nil, fmt.Errorf("after %d messages: member %.60q is where a body should be", a.whole, h.Name)
	}
	return &archiveBody{a: a, h: h, m: m, sum: sha256.New()}, nil
}

// archiveBody is a body in an export.
type archiveBody struct {
	a   *archiveReader
	h   *tar.Header
	m   *archiveMessage
	sum hash.Hash
}

// errChanged is what a body is refused with that is not what was exported.
var errChanged = errors.New("its body is not what was exported: the checksum differs")

// copyTo copies the body, and verifies it.
func (b *archiveBody) copyTo(w io.Writer) error {
	if b.h.Size != b.m.Message.Size {
		return fmt.Errorf("%w: %d bytes, want %d", errChanged, b.h.Size, b.m.Message.Size)
	}
	in := &faultReader{r: io.TeeReader(b.a.tar, b.sum)}
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, in, make([]byte, 64<<10))
	switch {
	case in.err != nil:
		return b.a.cut(b.h, in.err)
	case err != nil:
		return err
	case hex.EncodeToString(b.sum.Sum(nil)) != b.m.SHA256:
		return errChanged
	}
	return nil
}

// faultReader remembers what reading failed with.
type faultReader struct {
	r   io.Reader
	err error
}

func (f *faultReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}
