package dns

import "testing"

func TestOnThisHost(t *testing.T) {
	for server, want := range map[string]bool{
		"127.0.0.1:53": true, "127.0.0.53:53": true, "[::1]:53": true, "192.0.2.1:53": false, "[2001:db8::1]:53": false,
		"localhost:53": false, "": false,
	} {
		if got := onThisHost(server); got != want {
			t.Errorf("%q: %t", server, got)
		}
	}
}
