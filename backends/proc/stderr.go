package proc

import (
	"bufio"
	"io"
	"log/slog"
	"os"
	"time"

	"tabard/internal/address"
)

// Bounds of what a program may write into our log.
const (
	errorLine   = 1000 // bytes of one line
	errorLines  = 50   // in errorPeriod
	errorPeriod = 10 * time.Second
)

// relayErrors logs what a program writes to its standard error, until that ends.
func relayErrors(r *os.File, log *slog.Logger) {
	defer r.Close()
	br := bufio.NewReaderSize(r, 4*errorLine)
	var since time.Time
	lines := 0
	for {
		line, err := br.ReadSlice('\n')
		if now := time.Now(); now.Sub(since) > errorPeriod {
			if lines > errorLines {
				log.Warn("table program: lines left out", "lines", lines-errorLines)
			}
			since, lines = now, 0
		}
		if text := address.OneLine(string(line), errorLine); text != "" {
			if lines++; lines <= errorLines {
				log.Warn("table program", "stderr", text)
			}
		}
		if err != nil && err != bufio.ErrBufferFull {
			_, _ = io.Copy(io.Discard, r) // so that the program never waits for us
			return
		}
	}
}
