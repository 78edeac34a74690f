package socketmap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"tabard/table"
)

// maxReply is the longest answer in bytes, as it is for Postfix.
const maxReply = 100_000

// errProtocol is wrapped by everything that a server should not have said.
var errProtocol = errors.New("the server broke the protocol")

// netstring writes text with its length before and a comma behind it.
func netstring(text string) string { return strconv.Itoa(len(text)) + ":" + text + "," }

// readNetstring reads one.
func readNetstring(r *bufio.Reader) (string, error) {
	n := 0
	for digits := 0; ; digits++ {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == ':' && digits > 0 {
			break
		}
		if c < '0' || c > '9' || digits > 6 {
			return "", fmt.Errorf("%w: no netstring", errProtocol)
		}
		n = 10*n + int(c-'0')
	}
	if n > maxReply {
		return "", fmt.Errorf("%w: an answer of %d bytes, at most %d are read", errProtocol, n, maxReply)
	}
	b := make([]byte, n+1)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	if b[n] != ',' {
		return "", fmt.Errorf("%w: no comma behind a netstring", errProtocol)
	}
	return string(b[:n]), nil
}

// parseReply reads "OK data", "NOTFOUND ", "TEMP reason", "TIMEOUT reason" or
// "PERM reason". All reasons are temporary errors: PERM is a fault of the
// configuration, and nobody's mail is refused for good because of one.
func parseReply(text string) (string, error) {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("%w: an answer that is not UTF-8 text", errProtocol)
	}
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "OK":
		return rest, nil
	case "NOTFOUND":
		return "", table.ErrNotFound
	case "TEMP", "TIMEOUT", "PERM":
		return "", fmt.Errorf("the server says %s %.200q", word, rest)
	}
	return "", fmt.Errorf("%w: unknown answer %.40q", errProtocol, text)
}
