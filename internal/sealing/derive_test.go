package sealing

import (
	"bytes"
	"errors"
	"testing"
)

func TestDerive(t *testing.T) {
	old := ring(t, nil)
	both := ring(t, old)
	id := old.IDs()[0]
	key, err := old.Derive(id, "a purpose", []byte("salt"))
	if err != nil || len(key) != keySize {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	if again, err := both.Derive(id, "a purpose", []byte("salt")); err != nil || !bytes.Equal(again, key) {
		t.Errorf("from a larger ring: %v", err)
	}
	for what, other := range map[string]func() ([]byte, error){
		"purpose": func() ([]byte, error) { return both.Derive(id, "another", []byte("salt")) },
		"salt":    func() ([]byte, error) { return both.Derive(id, "a purpose", []byte("other")) },
		"key":     func() ([]byte, error) { return both.Derive(both.IDs()[0], "a purpose", []byte("salt")) },
	} {
		if got, err := other(); err != nil || bytes.Equal(got, key) {
			t.Errorf("another %s: the same key, %v", what, err)
		}
	}
	for _, r := range []*Ring{nil, ring(t, nil)} {
		if got, err := r.Derive(id, "a purpose", nil); !errors.As(err, new(*NoKeyError)) || got != nil || r.Has(id) {
			t.Errorf("without the key: %v", err)
		}
	}
}
