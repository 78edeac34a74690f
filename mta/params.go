package mta

import (
	"strings"

	"github.com/emersion/go-smtp"

	"tabard/internal/address"
	"tabard/queue"
)

// wireAddress returns a mailbox as it goes over the wire, its domain in
// A-labels if that makes it ASCII. utf8 means that it still needs SMTPUTF8.
func wireAddress(addr string) (wire string, utf8 bool) {
	if address.ASCII(addr) {
		return addr, false
	}
	local, domain := address.Split(addr)
	ascii, err := address.ToASCII(domain)
	if err != nil || !address.ASCII(local) {
		return addr, true
	}
	return local + "@" + ascii, false
}

// returnOptions are the DSN parameters of MAIL (RFC 3461 section 4.3, 4.4). The
// client leaves them out where the server does not offer DSN.
func returnOptions(m queue.Message) (smtp.DSNReturn, string) {
	ret := smtp.DSNReturn(m.Ret)
	if ret != smtp.DSNReturnFull && ret != smtp.DSNReturnHeaders {
		ret = ""
	}
	id := m.EnvID
	if !printable(id) || len(id) > 100 {
		id = ""
	}
	return ret, id
}

// rcptOptions are the DSN parameters of RCPT (RFC 3461 section 4.1, 4.2). What
// is not well formed is left out rather than refused: it was accepted once.
func rcptOptions(env queue.Envelope) *smtp.RcptOptions {
	opts := &smtp.RcptOptions{Notify: notify(env.Notify)}
	kind, original, ok := strings.Cut(env.ORCPT, ";")
	if !ok || original == "" || len(original) > 500 {
		return opts
	}
	switch strings.ToUpper(kind) {
	case "RFC822":
		if printable(original) {
			opts.OriginalRecipientType, opts.OriginalRecipient = smtp.DSNAddressTypeRFC822, original
		}
	case "UTF-8":
		opts.OriginalRecipientType, opts.OriginalRecipient = smtp.DSNAddressTypeUTF8, address.OneLine(original, 600)
	}
	return opts
}

func notify(list string) []smtp.DSNNotify {
	if list == "" {
		return nil
	}
	var out []smtp.DSNNotify
	seen := make(map[string]bool)
	for word := range strings.SplitSeq(strings.ToUpper(list), ",") {
		switch word {
		case "NEVER":
			return []smtp.DSNNotify{smtp.DSNNotifyNever}
		case "SUCCESS", "FAILURE", "DELAY":
			if !seen[word] {
				out = append(out, smtp.DSNNotify(word))
			}
			seen[word] = true
		}
	}
	return out
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// relayed reports whether the server takes over the duty of delivery reports,
// because the DSN parameters went along (RFC 3461 section 5.2.1).
func (s *session) relayed() bool {
	_, dsn := s.offers("DSN")
	return dsn
}
