package main

import (
	"strings"
	"testing"
	"time"

	"tabard/backends/provision"
)

func TestProgressLine(t *testing.T) {
	var out strings.Builder
	silent := newProgressLine(&out)
	silent.show("one")
	silent.clear()
	if out.Len() > 0 {
		t.Errorf("where there is no terminal: %q", out.String())
	}
	bar := &progressLine{w: &out}
	bar.clear()
	bar.show("one")
	bar.show("too soon")
	bar.shown = time.Now().Add(-2 * progressEvery)
	bar.show("two")
	bar.clear()
	if want := "\r\x1b[Kone\r\x1b[Ktwo\r\x1b[K"; out.String() != want {
		t.Errorf("wrote %q; want %q", out.String(), want)
	}
}

func TestImportLine(t *testing.T) {
	for _, c := range []struct {
		p          provision.Progress
		read, size int64
		want       string
	}{
		{provision.Progress{Lines: 5}, 50, 0, "5 lines"},
		{provision.Progress{Lines: 5}, 50, 100, "[###############               ]  50% 5 lines"},
		{provision.Progress{Lines: 9}, 200, 100, "[##############################] 100% 9 lines"},
		{provision.Progress{Lines: 9, Storing: true}, 100, 100, "storing 9 lines"},
	} {
		if got := importLine(c.p, c.read, c.size); got != c.want {
			t.Errorf("%+v: %q; want %q", c.p, got, c.want)
		}
	}
}
