package table

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseTLSPolicy(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	colons := strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	tests := []struct {
		row  Row
		want string // level names digests protocols ciphers, or the error
	}{
		{Row{"none"}, "none [] 0"},
		{Row{"MAY"}, "may [] 0"},
		{Row{" dane-only "}, "dane-only [] 0"},
		{Row{"sts"}, "sts [] 0"},
		{Row{"verify match=.example.org:MX.example.net:nexthop"}, "verify [.example.org mx.example.net nexthop] 0"},
		{Row{"secure", "match=hostname"}, "secure [hostname] 0"},
		{Row{"secure", ""}, "secure [] 0"},
		{Row{"encrypt protocols=>=TLSv1.2 ciphers=high"}, "encrypt [] 0 >=TLSv1.2 high"},
		{Row{"fingerprint=" + digest}, "fingerprint [] 1"},
		{Row{"fingerprint match=" + colons + "|" + digest}, "fingerprint [] 2"},
		{Row{"encrypt", "protocols=TLSv1.3"}, "encrypt [] 0 TLSv1.3"},
		{Row{"encrypt protocols=TLSv1.1"}, `error: tlspolicy: protocols "TLSv1.1": tlsv1.1 is too old`},
		{Row{"encrypt ciphers=RC4"}, `error: tlspolicy: ciphers "RC4": unknown cipher`},
		{Row{""}, "error: tlspolicy: nothing in the answer"},
		{Row{"encrypted"}, `error: tlspolicy: unknown level "encrypted"`},
		{Row{"may=1"}, `error: tlspolicy: unknown level "may=1"`},
		{Row{"may match=a.example"}, "error: tlspolicy: match has no meaning with level may"},
		{Row{"verify match=a b"}, `error: tlspolicy: unknown option "b"`},
		{Row{"verify match=a_%.example"}, "error: tlspolicy: match"},
		{Row{"verify match="}, `error: tlspolicy: unknown option "match="`},
		{Row{"fingerprint"}, "error: tlspolicy: fingerprint names no digest"},
		{Row{"fingerprint=abcd"}, `error: tlspolicy: fingerprint "abcd"`},
	}
	for _, tt := range tests {
		p, err := ParseTLSPolicy(tt.row)
		got := strings.TrimSpace(fmt.Sprintf("%s %v %d %s %s", p.Level, p.Names, len(p.Fingerprints), p.Protocols, p.Ciphers))
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want && (err == nil || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%q: %s, want %s", tt.row, got, tt.want)
		}
	}
}

// However selectors and keys are put into columns, no key is shown.
func TestHideDKIM(t *testing.T) {
	for _, row := range []Row{
		{"s1", "SECRET"}, {"s1:SECRET"}, {"s1:SECRET", "s2", "SECRET", "s3:SECRET"}, {"SECRET"}, {"s1", "SECRET", "SECRET"},
		{strings.Repeat("SECRET", 20), "s1"}, {"-----BEGIN PRIVATE KEY-----\nSECRET\n", "s1"}, {":SECRET"}, {},
	} {
		got := HideDKIM(row, "***")
		if text := strings.Join(got, "|"); strings.Contains(text, "SECRET") || len(got) != len(row) {
			t.Errorf("%q is shown as %q", row, got)
		}
	}
	if got := HideDKIM(Row{"s1:SECRET", "s2", "SECRET"}, "***"); !slices.Equal(got, []string{"s1:***", "s2", "***"}) {
		t.Errorf("%q", got)
	}
}

func TestParseDKIM(t *testing.T) {
	const ed = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g"
	const pem = "-----BEGIN PRIVATE KEY-----\n" + ed + "\n-----END PRIVATE KEY-----\n"
	tests := []struct {
		row  Row
		want string
	}{
		{Row{"s1", pem}, "s1"},
		{Row{"s1", ed, "S2.sub", pem}, "s1 s2.sub"},
		{Row{"s1:" + ed}, "s1"},
		{Row{"s1:" + ed, "s2:file:/etc/key.pem"}, "s1 s2"},
		{Row{"s1", "file:/etc/key.pem"}, "s1"},
		{nil, "error: dkim: nothing"},
		{Row{"s1"}, "error: dkim: a selector without a key"},
		{Row{"", ed}, `error: dkim: selector ""`},
		{Row{"s 1", ed}, `error: dkim: selector "s 1"`},
		{Row{"[192.0.2.1]", ed}, `error: dkim: selector "[192.0.2.1]": is not made of labels`},
		{Row{"s1", "file:key.pem"}, "error: dkim: selector \"s1\": file: wants an absolute path"},
		{Row{"s1", "SECRET!"}, "error: dkim: selector \"s1\": key is neither"},
		{Row{"s1", "U0VDUkVU"}, "error: dkim: selector \"s1\": private key is not"},
		{Row{"s1", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "error: dkim: selector \"s1\": no PRIVATE KEY"},
	}
	for _, tt := range tests {
		keys, err := ParseDKIM(tt.row)
		var names []string
		for _, k := range keys {
			names = append(names, k.Selector)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want && (err == nil || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%.40q: %s, want %s", tt.row, got, tt.want)
		}
		if strings.Contains(got, "U0VDUkVU") || strings.Contains(fmt.Sprintf("%v %#v", keys, keys), "PRIVATE") {
			t.Errorf("%.40q: a key is shown", tt.row)
		}
	}
}

func FuzzTexts(f *testing.F) {
	for _, s := range []string{"fingerprint=ab", "verify match=a:b", "s:MC4CAQ", "may", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, service := range Services() {
			for _, row := range []Row{{s}, {s, s}, {"s", s}} {
				if err := CheckRow(service, "key", row); err == nil && service == TLSPolicy && len(row) == 1 && strings.TrimSpace(s) == "" {
					t.Errorf("%q is a policy", s)
				}
			}
		}
	})
}
