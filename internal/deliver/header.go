package deliver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"tabard/internal/address"
)

// maxField is how much of a header field is looked at, in bytes.
const maxField = 2 << 10

// headerFacts is what delivery needs to know of a message's header.
type headerFacts struct {
	loop bool // Delivered-To names the address
	spam bool // X-Spam or X-Spam-Flag says yes
}

// examine reads the header of the body.
func (b *body) examine(ctx context.Context, addr string) (headerFacts, error) {
	return scanHeader(b.reader(ctx), addr)
}

// scanHeader reads up to the empty line that ends the header (RFC 5322 section
// 2.1). Its memory is bounded whatever the lines are like.
func scanHeader(r io.Reader, addr string) (headerFacts, error) {
	var facts headerFacts
	br := bufio.NewReaderSize(r, 4<<10)
	var field []byte
	for {
		line, err := headerLine(br)
		if err != nil && err != io.EOF {
			return facts, err
		}
		if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
			field = append(field, line[:min(len(line), maxField-len(field))]...)
			if err == nil {
				continue
			}
		}
		facts.note(field, addr)
		if len(line) == 0 || err == io.EOF {
			facts.note(line, addr)
			return facts, nil
		}
		field = append(field[:0], line...)
	}
}

// headerLine returns a line without its end, cut at maxField, valid until the
// next read.
func headerLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	kept := line
	if errors.Is(err, bufio.ErrBufferFull) {
		kept = bytes.Clone(line[:maxField])
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = br.ReadSlice('\n')
		}
	}
	kept = bytes.TrimRight(kept, "\r\n")
	return kept[:min(len(kept), maxField)], err
}

func (f *headerFacts) note(field []byte, addr string) {
	name, value, ok := bytes.Cut(field, []byte(":"))
	if !ok {
		return
	}
	value = bytes.TrimSpace(value)
	switch {
	case bytes.EqualFold(name, []byte("Delivered-To")):
		f.loop = f.loop || strings.EqualFold(string(value), oneLineAddress(addr))
	case bytes.EqualFold(name, []byte("X-Spam")), bytes.EqualFold(name, []byte("X-Spam-Flag")):
		f.spam = f.spam || bytes.EqualFold(value, []byte("yes"))
	}
}

// prelude is what goes in front of a message on disk: the reverse-path (RFC
// 5321 section 4.4) and the mark by which a loop is found.
func (p *parcel) prelude() string {
	return "Return-Path: <" + oneLineAddress(p.msg.Sender) + ">\n" +
		"Delivered-To: " + oneLineAddress(p.env.Address) + "\n"
}

func oneLineAddress(s string) string { return address.OneLine(s, 1000) }
