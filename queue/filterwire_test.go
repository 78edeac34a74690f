package queue_test

import (
	"testing"

	"tabard/internal/rpc"
	"tabard/queue"
)

// TestFilterOfAnotherVersion: what a newer tool asks is not done in part by an older
// server, nor the reverse: a field that is passed over would choose more mail.
func TestFilterOfAnotherVersion(t *testing.T) {
	t.Parallel()
	coding, err := rpc.NewCoding()
	if err != nil {
		t.Fatal(err)
	}
	fields := func(v any) (list []any) {
		b, err := coding.Marshal(v)
		if err == nil {
			err = coding.Unmarshal(b, &list)
		}
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for name, c := range map[string]struct {
		fields []any
		into   func() any
	}{
		"filter": {fields(queue.Filter{HeldFor: []string{"x"}}), func() any { return new(queue.Filter) }},
		"steer":  {fields(queue.Steer{Op: queue.OpRemove}), func() any { return new(queue.Steer) }},
	} {
		for of, list := range map[string][]any{"same": c.fields, "newer": append(c.fields[:len(c.fields):len(c.fields)], nil), "older": c.fields[:len(c.fields)-1]} {
			b, err := coding.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			if err := coding.Unmarshal(b, c.into()); (err == nil) != (of == "same") {
				t.Errorf("%s of a version that is %s: %v", name, of, err)
			}
		}
	}
}
