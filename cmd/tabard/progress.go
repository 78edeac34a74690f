package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progressLine is a line of a terminal that is written over and over. Where there
// is no terminal it is silent.
type progressLine struct {
	w     io.Writer // nil: silent
	shown time.Time
}

// progressEvery is how often the line changes.
const progressEvery = 100 * time.Millisecond

func newProgressLine(w io.Writer) *progressLine {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &progressLine{w: w}
	}
	return &progressLine{}
}

// show shows text in place of what is shown, but not too often.
func (p *progressLine) show(text string) {
	if p.w != nil && time.Since(p.shown) >= progressEvery {
		p.put(text)
	}
}

// put shows text now.
func (p *progressLine) put(text string) {
	if p.w == nil {
		return
	}
	p.shown = time.Now()
	_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s", text)
}

// clear removes the line.
func (p *progressLine) clear() {
	if p.w != nil && !p.shown.IsZero() {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// barOf draws a part of 1.
func barOf(part float64) string {
	const width = 30
	part = min(max(part, 0), 1)
	full := int(part * width)
	return fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("#", full), strings.Repeat(" ", width-full), int(part*100))
}
