package dns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadHosts(t *testing.T) {
	h, err := LoadHosts(write(t, `
# comment
127.0.0.1 localhost
192.0.2.66 localhost            # not believed
192.0.2.1  Mail.Example mail    # two names
2001:db8::1 mail.example
nonsense mail.example
192.0.2.2
192.0.2.3 bad;name
`))
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{Hosts: h})
	for name, want := range map[string]string{
		"localhost": "[127.0.0.1 ::1]", "mail.example": "[192.0.2.1 2001:db8::1]", "mail": "[192.0.2.1]",
	} {
		got, err := r.Addrs(t.Context(), name)
		if fmt.Sprint(got) != want || err != nil {
			t.Errorf("%s is %v, %v; want %s", name, got, err, want)
		}
	}
	if got, err := r.MX(t.Context(), "mail.example"); err != nil || got[0].Host != "mail.example" {
		t.Errorf("MX = %v, %v; want the host itself", got, err)
	}
}

func TestLoadHostsMissing(t *testing.T) {
	h, err := LoadHosts(filepath.Join(t.TempDir(), "none"))
	if err != nil || len(h.byName) != 1 {
		t.Errorf("LoadHosts = %v, %v; want localhost alone", h, err)
	}
	if _, err := LoadHosts(t.TempDir()); err == nil {
		t.Error("a directory was read as a hosts file")
	}
}

func TestReadServers(t *testing.T) {
	got, err := readServers(write(t, "search x\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"))
	if want := "[192.0.2.1:53 [2001:db8::1]:53]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("servers = %v, %v; want %s", got, err, want)
	}
	for _, text := range []string{"", "search x\n", "nameserver not-an-address\n"} {
		if got, err := readServers(write(t, text)); err == nil {
			t.Errorf("%q gave %v", text, got)
		}
	}
}

func FuzzReadHosts(f *testing.F) {
	f.Add("192.0.2.1 a b # c\n::1 localhost\n")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := readHosts(strings.NewReader(text))
		if err != nil {
			return
		}
		for name := range h.byName {
			if strings.ContainsAny(name, " \t\r\n\x00") {
				t.Errorf("name %q", name)
			}
		}
	})
}

// Whatever a server sends, a name that comes out is a host name.
func FuzzReadAnswer(f *testing.F) {
	for _, rr := range []string{"q.example. MX 10 a.example.", "q.example. CNAME b.example.", "q.example. PTR a\\010.b."} {
		m := new(mdns.Msg).SetQuestion("q.example.", mdns.TypeMX)
		m.Response = true
		if record, err := mdns.NewRR(rr); err == nil {
			m.Answer = append(m.Answer, record)
		}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := new(mdns.Msg)
		if m.Unpack(packet) != nil || len(m.Question) != 1 {
			return
		}
		q := question{canonical(m.Question[0].Name), m.Question[0].Qtype}
		if checkReply(q, m) != nil {
			return
		}
		a := readAnswer(q, m)
		for _, mx := range a.mx {
			a.names = append(a.names, mx.Host)
		}
		for _, name := range a.names {
			if name != strings.ToLower(name) || strings.ContainsAny(name, "\\ \r\n\x00\"") {
				t.Errorf("name %q came through", name)
			}
		}
	})
}
