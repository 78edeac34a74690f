package mta

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"tabard/internal/address"
	"tabard/lookup"
)

// scramSHA256 is RFC 7677: the password does not leave us, and the server proves
// that it knows it. The channel is not bound to it.
type scramSHA256 struct{ talk *scram.ClientConversation }

func newSCRAM(cred lookup.Credentials) (mechanism, error) {
	client, err := scram.SHA256.NewClient(cred.User, cred.Password, "")
	if err != nil {
		// The library's error quotes what it could not prepare (RFC 4013).
		return nil, errors.New("user name or password hold characters that SCRAM does not allow")
	}
	return &scramSHA256{client.NewConversation()}, nil
}

func (*scramSHA256) name() string { return "SCRAM-SHA-256" }

func (m *scramSHA256) initial() (string, error) { return m.talk.Step("") }

// maxIterations bounds what a server can make us compute: at this number it takes
// a fraction of a second.
const maxIterations = 1_000_000

func (m *scramSHA256) next(challenge string) (string, error) {
	text, err := base64.StdEncoding.DecodeString(challenge)
	if err != nil {
		return "", errors.New("the server's challenge is not base64")
	}
	if m.talk.Done() {
		return "", errNothingToSay
	}
	for part := range strings.SplitSeq(string(text), ",") {
		if count, ok := strings.CutPrefix(part, "i="); ok {
			if n, err := strconv.ParseUint(count, 10, 32); err != nil || n > maxIterations {
				return "", fmt.Errorf("the server asks for %.20q iterations, at most %d are made", count, maxIterations)
			}
		}
	}
	answer, err := m.talk.Step(string(text))
	if err != nil { // it may quote the server
		return "", errors.New("SCRAM: " + address.OneLine(err.Error(), 200))
	}
	return answer, nil
}

func (m *scramSHA256) proven() error {
	if !m.talk.Valid() {
		return errors.New("the server did not prove that it knows the password")
	}
	return nil
}
