package config

import (
	"slices"
	"strings"
)

// reservedWords are the keywords of OpenSMTPD 7.8. Everywhere, also where only a
// name could stand, they must be quoted to be taken as text. Tabard's own words
// are not among them: they have a meaning only where a directive or option may
// begin, so that no file of OpenSMTPD breaks.
const reservedWords = `action admd alias any auth auth-optional backup bounce bypass ca cert chain chroot
ciphers commit compression connect data data-line dhe disconnect domain ehlo encryption expand-only
fcrdns filter for forward-only from group helo helo-src host hostname hostnames include inet4 inet6
junk key limit listen lmtp local mail-from maildir mask-src masquerade match max-deferred
max-message-size mbox mda mta mx no-dsn no-verify noop on phase pki port proc proc-exec protocols
proxy-v2 queue quit rcpt-to rdns received-auth recipient regex reject relay report rewrite rset
scheduler senders smtp smtp-in smtp-out smtps socket src srs sub-addr-delim table tag tagged tls
tls-require ttl user userbase verify virtual warn-interval wrapper`

// Reserved returns OpenSMTPD's keywords, which must be quoted where text is
// wanted, in alphabetical order.
func Reserved() []string {
	words := strings.Fields(reservedWords)
	slices.Sort(words)
	return words
}

// reservedSet returns them for quick questions; the parser makes it once.
func reservedSet() map[string]bool {
	set := make(map[string]bool)
	for _, w := range strings.Fields(reservedWords) {
		set[w] = true
	}
	return set
}

// listWords returns words as "a, b, c", sorted, for messages.
func listWords(words []string) string {
	words = slices.Clone(words)
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}
