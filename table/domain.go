package table

import "strings"

// MatchDomain reports whether a domain matches a pattern, without regard to
// case. A '*' runs to the first occurrence of the character after it and never
// further: "*.example.org" matches "a.example.org", but neither "example.org"
// nor "a.b.example.org". A '*' at the end matches the rest, so that "*" alone
// matches every domain, though not the empty one.
func MatchDomain(domain, pattern string) bool {
	domain, pattern = Fold(domain), Fold(pattern)
	for pattern != "" && domain != "" {
		if pattern[0] != '*' {
			if pattern[0] != domain[0] {
				return false
			}
			pattern, domain = pattern[1:], domain[1:]
			continue
		}
		pattern = strings.TrimLeft(pattern, "*")
		if pattern == "" {
			return true
		}
		i := strings.IndexByte(domain, pattern[0])
		if i < 0 {
			return false
		}
		domain = domain[i:]
	}
	return pattern == "" && domain == ""
}

// HasWildcard reports whether a domain or mailaddr entry must be walked.
func HasWildcard(entry string) bool { return strings.Contains(entry, "*") }

// DomainCandidates returns the exact entries that match a domain, most specific
// first: the domain, the wildcard for its first label, and "*". They serve
// sources that can only be asked for exact keys; other wildcards need a walk.
func DomainCandidates(domain string) []string {
	if domain == "" {
		return []string{""}
	}
	keys := []string{domain}
	if _, parent, ok := strings.Cut(domain, "."); ok && parent != "" {
		keys = append(keys, "*."+parent)
	}
	return append(keys, "*")
}
