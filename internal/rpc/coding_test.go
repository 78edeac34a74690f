package rpc

import (
	"testing"
	"time"
)

func TestTimesArriveInUTC(t *testing.T) {
	c, err := NewCoding()
	if err != nil {
		t.Fatal(err)
	}
	want := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("x", 5400))
	data, err := c.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got time.Time
	if err := c.Unmarshal(data, &got); err != nil || !got.Equal(want) || got.Location() != time.UTC {
		t.Errorf("%v became %v, %v", want, got, err)
	}
}

func TestDecoderLimits(t *testing.T) {
	c, err := NewCoding()
	if err != nil {
		t.Fatal(err)
	}
	long, err := c.Marshal(make([]int, 8193))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"array too long": long,
		"duplicate key":  {0xa2, 0x61, 'N', 0x01, 0x61, 'N', 0x02},
		"nothing":        {},
	} {
		var v any
		if err := c.Unmarshal(data, &v); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	wide, err := NewTrustedCoding()
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := wide.Unmarshal(long, &v); err != nil {
		t.Errorf("a long array of the supervisor: %v", err)
	}
	var id struct{ N int }
	if err := c.Unmarshal([]byte{0xa2, 0x61, 'N', 0x01, 0x61, 'N', 0x02}, &id); err == nil {
		t.Error("duplicate key in a struct: accepted")
	}
}
