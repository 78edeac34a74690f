package main

import (
	"testing"
	"time"
)

// Arguments are taken for what they look like, as they stand in logs and in mailq.
func TestWordOf(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]struct {
		w    word
		bare string
	}{
		"user@example.org":     {wordAddress, "user@example.org"},
		"<>":                   {wordAddress, "<>"},
		"<user@example.org>":   {perhapsHeader, "user@example.org"},
		"@example.org":         {wordDomain, "example.org"},
		"example.org":          {perhapsDomain, "example.org"},
		"192.0.2.1":            {wordText, "192.0.2.1"},
		"2001:db8::1":          {wordText, "2001:db8::1"},
		"5.7.1":                {wordText, "5.7.1"},
		"0192f3a5c1d2e3f4":     {wordID, "0192f3a5c1d2e3f4"},
		"0192f3a5c1d2e3f4.12:": {wordID, "0192f3a5c1d2e3f4.12"},
		"4f2a1b3c":             {perhapsID, "4f2a1b3c"}, // OpenSMTPD's message
		"4f2a1b3c5d6e7f80":     {wordID, "4f2a1b3c5d6e7f80"},
		"1A2B3C4D5E":           {perhapsID, "1A2B3C4D5E"}, // Postfix
		"1A2B3C4D5E*":          {perhapsID, "1A2B3C4D5E"},
		"4fmz8D5Yphz1Z3J":      {wordID, "4fmz8D5Yphz1Z3J"}, // Postfix, enable_long_queue_ids
		"4fmz8D5Yphz1Z3J!":     {wordID, "4fmz8D5Yphz1Z3J"},
		"greylisted":           {wordText, "greylisted"},
		"550":                  {wordText, "550"},
		"user unknown":         {wordText, "user unknown"},
		"@ home":               {wordText, "@ home"},
		"mx[192.0.2.1]:25":     {wordText, "mx[192.0.2.1]:25"},
	} {
		if w, bare := wordOf(arg); w != want.w || bare != want.bare {
			t.Errorf("%q: %d %q, want %d %q", arg, w, bare, want.w, want.bare)
		}
	}
}

func TestParseWhen(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 3600)
	now := time.Date(2026, 3, 1, 12, 30, 0, 0, zone)
	for text, want := range map[string]string{
		"now":                           "2026-03-01T12:30:00+01:00",
		"today":                         "2026-03-01T00:00:00+01:00",
		"Yesterday":                     "2026-02-28T00:00:00+01:00",
		"90s":                           "2026-03-01T12:28:30+01:00",
		"-1h":                           "2026-03-01T11:30:00+01:00",
		"1h30m":                         "2026-03-01T11:00:00+01:00",
		"1d 2h":                         "2026-02-28T10:30:00+01:00",
		"2w":                            "2026-02-15T12:30:00+01:00",
		"2 hours ago":                   "2026-03-01T10:30:00+01:00",
		"12:15":                         "2026-03-01T12:15:00+01:00",
		"12:31:07":                      "2026-02-28T12:31:07+01:00",
		"2026-02-03":                    "2026-02-03T00:00:00+01:00",
		"2026-02-03 04:05":              "2026-02-03T04:05:00+01:00",
		"2026-02-03T04:05:06.789Z":      "2026-02-03T04:05:06Z",
		"2026-02-03T04:05:06.789+02:00": "2026-02-03T04:05:06+02:00",
		"Feb  3 04:05:06":               "2026-02-03T04:05:06+01:00",
		"Feb 3 04:05":                   "2026-02-03T04:05:00+01:00",
		"Dec 24":                        "2025-12-24T00:00:00+01:00",
		"Feb 29":                        "2024-02-29T00:00:00+01:00",
	} {
		if got, err := parseWhen(text, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %s, %v; want %s", text, got.Format(time.RFC3339), err, want)
		}
	}
	for _, text := range []string{"soon", "-", "1x", "1", "2026-13-01", "25:00", "99999999999d", "900000000w", "Feb 30"} {
		if got, err := parseWhen(text, now); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}
