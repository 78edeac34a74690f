package posttest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"tabard/internal/eventlog"
	"tabard/internal/eventlog/textlog"
)

// NotUnderstood returns the lines of the log that `tabard log import` does not
// understand, and how many events it makes of the others. After Close there is no log.
func (s *Server) NotUnderstood() (lines []string, events int) {
	log, err := os.ReadFile(s.logFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return []string{err.Error()}, 0
	}
	r := textlog.New(textlog.Options{Format: textlog.Postfix, Zone: time.Local}, func(eventlog.Event) error {
		events++
		return nil
	})
	for line := range strings.Lines(string(log)) {
		if err := r.Line(line); err != nil {
			lines = append(lines, fmt.Sprintf("%s: %v", strings.TrimSpace(line), err))
		}
	}
	_ = r.Finish() // fails as Line does: never
	return lines, events
}
