package mta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	netmail "net/mail"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"

	"tabard/internal/address"
	"tabard/lookup"
	"tabard/queue"
)

const (
	// maxHeader bounds the header that is looked through for the author, in bytes.
	// A message with a longer one is not signed.
	maxHeader = 256 << 10
	// maxFields and maxPicked bound its fields, and those of them that are signed: the
	// signer looks through all for each.
	maxFields, maxPicked = 2000, 200
	// maxSigned is for how many messages signatures are kept, so that a message is
	// signed once, not at each attempt.
	maxSigned = 4096
)

// signed is what became of the wish to sign a message.
type signed struct{ header []byte }

// sign returns the DKIM-Signature fields (RFC 6376) of a message: one for each key
// that lookup has for the domain of its author. What cannot be asked or signed
// defers the mail: without the signature, receivers might throw it away.
func (m *MTA) sign(ctx context.Context, d *destination, job *queue.Job) (*signed, *failure) {
	if !d.route.DKIM || foreign(job) {
		return &signed{}, nil
	}
	if fail := sound(job); fail != nil {
		return nil, fail
	}
	header, err := m.header(ctx, job)
	if err != nil {
		return nil, deferred("4.3.0", err.Error())
	}
	domain := authorDomain(header)
	if domain == "" {
		return &signed{}, nil
	}
	asking, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	keys, err := m.lookup.DKIM(asking, lookup.DKIMRequest{Action: d.action, Domain: domain})
	if err != nil {
		return nil, deferred("4.7.0", "cannot look up the keys to sign with: "+err.Error())
	}
	if len(keys) == 0 {
		return &signed{}, nil
	}
	name := signedName(job, keys)
	if s, ok := m.signed.GetIfPresent(name); ok {
		return s, nil
	}
	unfolded := unfold(header)
	fields := signedFields(unfolded)
	if bytes.Count(unfolded, []byte("\r\n")) > maxFields || len(fields) > maxPicked {
		m.cfg.Logger.Warn("mta message not signed", "message", job.Message.ID.String(), "domain", domain, "reason", "too many header fields")
		return &signed{}, nil
	}
	s := &signed{}
	to := func(w io.Writer) error {
		if _, err := w.Write(unfolded); err != nil {
			return err
		}
		return m.copyText(ctx, job, &tail{w, len(header)})
	}
	if s.header, err = m.signatures(ctx, to, keys, fields); err != nil {
		if errors.Is(err, errBareLineEnd) {
			return nil, failed("5.6.0", err.Error())
		}
		return nil, deferred("4.7.0", "cannot sign: "+err.Error())
	}
	m.signed.Set(name, s)
	return s, nil
}

// signedName names a message with the keys that sign it. A key that was replaced has
// another handle.
func signedName(job *queue.Job, keys []lookup.DKIMKey) string {
	name := fmt.Sprint(job.Message.ID, job.Message.Size)
	for _, k := range keys {
		name += " " + k.Domain + " " + k.Selector + " " + k.Handle
	}
	return name
}

// foreign reports whether an alias of ours sends a stranger's message on. What its
// From says is the stranger's word: to sign it would be to vouch for whatever he
// writes in our name. Ours is what came from an authenticated user or from this
// machine, the queue's own reports among it; and who is let relay without an alias
// was trusted by a rule.
func foreign(job *queue.Job) bool {
	m := &job.Message
	if ip, err := netip.ParseAddr(m.Remote); m.User != "" || m.Remote == "" || m.Remote == "local" || err == nil && ip.IsLoopback() {
		return false
	}
	return slices.ContainsFunc(job.Envelopes, func(e queue.Envelope) bool { return forwarded(&e) })
}

// forwarded reports whether a recipient is another one than was given in RCPT.
func forwarded(e *queue.Envelope) bool {
	given, err := address.Parse(e.Recipient)
	to, err2 := address.Parse(e.Address)
	if err != nil || err2 != nil || given.Domain == "" {
		return e.Recipient != e.Address
	}
	return given != to
}

// signatures passes a message, which text writes, through a signer for each key.
func (m *MTA) signatures(ctx context.Context, text func(io.Writer) error, keys []lookup.DKIMKey, fields []string) ([]byte, error) {
	var signers []*dkim.Signer
	defer func() {
		for _, s := range signers {
			_ = s.Close() // a second time is nothing; this is for errors
		}
	}()
	var to []io.Writer
	for _, k := range keys {
		key, err := lookup.DKIMSigner(ctx, m.lookup, k)
		if err != nil {
			return nil, err
		}
		s, err := dkim.NewSigner(&dkim.SignOptions{
			Domain: k.Domain, Selector: k.Selector, Signer: key, HeaderKeys: fields,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		})
		if err != nil {
			return nil, err
		}
		signers, to = append(signers, s), append(to, s)
	}
	if err := text(io.MultiWriter(to...)); err != nil {
		return nil, err
	}
	var all bytes.Buffer
	for i, s := range signers {
		if err := s.Close(); err != nil {
			return nil, fmt.Errorf("as %s of %s: %w", keys[i].Selector, keys[i].Domain, err)
		}
		all.WriteString(s.Signature())
	}
	signers = nil
	return all.Bytes(), nil
}

// header returns the header of a message with the empty line that ends it; nil if
// there is none, or it is too long.
func (m *MTA) header(ctx context.Context, job *queue.Job) ([]byte, error) {
	text := job.Body
	for {
		if end := bytes.Index(text, []byte("\r\n\r\n")); end >= 0 {
			return text[:end+4], nil
		}
		if job.Body != nil || len(text) > maxHeader || int64(len(text)) >= job.Message.Size {
			return nil, nil
		}
		chunk, err := m.fetch(ctx, job, int64(len(text)))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errLocal, err)
		}
		text = append(text, chunk...)
	}
}

// unfold joins the lines of each field of a header, which the relaxed form does as
// well (RFC 6376 section 3.4.2): the signer copies a field for each of its lines.
func unfold(header []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(header, []byte("\r\n "), []byte(" ")), []byte("\r\n\t"), []byte("\t"))
}

// tail passes on what comes after the first skip bytes.
type tail struct {
	to   io.Writer
	skip int
}

func (t *tail) Write(p []byte) (int, error) {
	cut := min(t.skip, len(p))
	t.skip -= cut
	if cut == len(p) { // who reads a pipe gives up after empty writes
		return cut, nil
	}
	n, err := t.to.Write(p[cut:])
	return cut + n, err
}

// authorDomain returns the domain of the first mailbox of the only From field;
// empty when there is not exactly one such field, or nothing to be read from it.
func authorDomain(header []byte) string {
	msg, err := netmail.ReadMessage(bytes.NewReader(header))
	if err != nil || len(msg.Header["From"]) != 1 {
		return ""
	}
	authors, err := msg.Header.AddressList("From")
	if err != nil || len(authors) == 0 {
		return ""
	}
	_, domain := address.Split(authors[0].Address)
	return domain
}

// signedFields names the fields to sign (RFC 6376 section 5.4.1), each as often as
// it is there. Those that readers see are named once more, so that nobody can add
// another of them (section 8.15).
func signedFields(header []byte) []string {
	count := make(map[string]int)
	for line := range bytes.SplitSeq(header, []byte("\r\n")) {
		if name, _, ok := strings.Cut(string(line), ":"); ok && line[0] != ' ' && line[0] != '\t' {
			count[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))]++
		}
	}
	var fields []string
	for _, f := range []struct {
		name string
		seal bool
	}{
		{"From", true}, {"To", true}, {"Cc", true}, {"Subject", true}, {"Date", true}, {"Reply-To", true}, {"Message-Id", false},
		{"In-Reply-To", false}, {"References", false}, {"Mime-Version", false}, {"Content-Type", true},
		{"Content-Transfer-Encoding", true}, {"Sender", false}, {"List-Id", false}, {"List-Unsubscribe", false},
		{"List-Unsubscribe-Post", false}, {"List-Post", false}, {"List-Help", false}, {"Autocrypt", false},
	} {
		n := count[f.name]
		if f.seal {
			n++
		}
		for range n {
			fields = append(fields, f.name)
		}
	}
	return fields
}
