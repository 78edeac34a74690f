package lookup

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/internal/srs"
)

// errNoKey means that the file of SRS keys cannot be read, and never could be.
var errNoKey = errors.New("no SRS key")

// errNotBounce refuses mail that is no bounce: whoever has seen a rewritten address
// could have it forwarded otherwise.
var errNotBounce = errors.New("this SRS address takes bounces only")

// senders rewrites reverse-paths. Its keys never leave this process. The files
// that they may be in are read again when they change; one that cannot be read any
// more goes on serving as it was.
type senders struct {
	cfg   config.SRS
	clock func() time.Time
	local string // our own name
	files *pemFiles
	log   *slog.Logger

	mu    sync.Mutex
	texts [2]string // of key and backup, as they are in force
	fault error     // why the files are not, as they are now
	by    *srs.Rewriter
}

// newSenders returns nil when the configuration has no key.
func newSenders(s *Service) *senders {
	if s.cfg.SRS.Key == "" {
		return nil
	}
	r := &senders{cfg: s.cfg.SRS, clock: s.clock, local: s.hostname, files: s.certs.files, log: s.log}
	_, _ = r.rewriter() // a start as root may read what later only root could
	return r
}

// rewriter returns what works by the keys of now.
func (r *senders) rewriter() (*srs.Rewriter, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.refresh()
	if err != nil && (r.fault == nil || r.fault.Error() != err.Error()) {
		r.log.Warn("SRS key cannot be used", "error", err)
	}
	if r.fault = err; r.by == nil {
		return nil, fmt.Errorf("%w: %w", errNoKey, err)
	}
	return r.by, nil
}

// check says why the keys cannot be used as they are now.
func (r *senders) check() error {
	if r == nil {
		return nil
	}
	_, _ = r.rewriter()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault
}

// refresh takes over keys that changed.
func (r *senders) refresh() error {
	texts, err := r.read()
	if err != nil || r.by != nil && texts == r.texts {
		return err
	}
	first := lines(texts[0])
	if len(first) == 0 {
		return fmt.Errorf("%s: no key in it", strings.TrimPrefix(r.cfg.Key, "file:"))
	}
	r.texts = texts
	r.by = srs.New(r.cfg.TTL, first[0], append(first[1:], lines(texts[1])...)...)
	return nil
}

// read returns the secrets of the two directives, one on a line.
func (r *senders) read() (texts [2]string, err error) {
	for i, key := range []string{r.cfg.Key, r.cfg.Backup} {
		path, isFile := strings.CutPrefix(key, "file:")
		if texts[i] = key; !isFile {
			continue
		}
		row, err := r.files.read(path)
		if err != nil {
			return texts, err
		}
		texts[i] = row[0]
	}
	return texts, nil
}

// lines are the lines of a file of keys that are not blank.
func lines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// forward returns the reverse-path for mail that aliases led elsewhere, empty if
// it stays as it is. As in OpenSMTPD, mail that no alias touched is not forwarded,
// whoever sends it; and a sender of the domain itself needs no rewriting.
func (r *senders) forward(req *RouteRequest) (string, error) {
	sender, err := address.Parse(req.Sender)
	original, err2 := address.Parse(req.Original)
	if err != nil || err2 != nil || sender.Domain == "" {
		return "", nil // the null sender, and what rewriting would not mend
	}
	if original.Domain == "" {
		original.Domain = r.local
	}
	if to, err := address.Parse(req.Recipient); err == nil && to == original {
		return "", nil
	}
	if sameDomain(sender.Domain, original.Domain) {
		return "", nil
	}
	by, err := r.rewriter()
	if err != nil {
		return "", err
	}
	a, err := by.Forward(sender, original.Domain, r.clock())
	if err != nil {
		r.log.Warn("reverse-path stays as it is", "from", req.Sender, "rcpt", req.Original, "error", err)
		return "", nil
	}
	return a.String(), nil
}

// sameDomain compares domains in whatever labels.
func sameDomain(a, b string) bool {
	return strings.EqualFold(a, b) || strings.EqualFold(otherLabels(a), b)
}

// reverse returns the address that a bounce to addr is for: the zero address if
// addr is none of SRS, or there is no key. An error says why it is not good.
func (r *senders) reverse(addr address.Address, sender string) (address.Address, error) {
	if r == nil || !srs.Is(addr.Local) {
		return address.Address{}, nil
	}
	if sender != "" {
		return address.Address{}, errNotBounce
	}
	by, err := r.rewriter()
	if err != nil {
		return address.Address{}, err
	}
	return by.Reverse(addr, r.clock())
}
