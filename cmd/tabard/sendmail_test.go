package main

import "testing"

// The configuration is named as for every other command, too: `tabard -c FILE sendmail`
// passes that on.
func TestSendmailConfig(t *testing.T) {
	for _, args := range [][]string{{"-C", "/f"}, {"-C/f"}, {"-c", "/f"}, {"-c/f"}, {"--config", "/f"}, {"--config=/f"}} {
		o, err := parseSendmail(append(args, "-i", "a@b.example"))
		if err != nil || o.config != "/f" || !o.ignoreDots || len(o.recipients) != 1 {
			t.Errorf("%v: %+v, %v", args, o, err)
		}
	}
	if _, err := parseSendmail([]string{"--config"}); err == nil {
		t.Error("--config without a value is taken")
	}
}
