package tlsopt

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestProtocols(t *testing.T) {
	const v12, v13 = tls.VersionTLS12, tls.VersionTLS13
	tests := []struct {
		text     string
		min, max uint16
		fails    string
	}{
		{text: "TLSv1.2", min: v12, max: v12},
		{text: "tlsv1.3", min: v13, max: v13},
		{text: "TLSv1.2:TLSv1.3", min: v12, max: v13},
		{text: "TLSv1.3, TLSv1.2", min: v12, max: v13},
		{text: "all", min: v12, max: v13},
		{text: "secure", min: v12, max: v13},
		{text: "!TLSv1.2", min: v13, max: v13},
		{text: "all:!tlsv1.3", min: v12, max: v12},
		{text: ">=TLSv1.2", min: v12, max: v13},
		{text: ">=TLSv1", min: v12, max: v13},
		{text: "<=TLSv1.2", min: v12, max: v12},
		{text: "TLSv1.1", fails: "too old"},
		{text: "TLSv1.1:TLSv1.2", fails: "too old"},
		{text: "SSLv3", fails: "too old"},
		{text: "legacy", fails: `unknown version "legacy"`},
		{text: "TLSv1.2:!TLSv1.2", fails: "no version is left"},
		{text: "TLSv1.4", fails: "unknown version"},
		{text: "=TLSv1.2", fails: "unknown version"},
		{text: ":", fails: "no version is left"},
	}
	for _, tt := range tests {
		o, err := Parse(tt.text, "")
		switch {
		case tt.fails != "":
			if err == nil || !strings.Contains(err.Error(), tt.fails) || !strings.Contains(err.Error(), "expected TLSv1.2") {
				t.Errorf("%q: %v, want %q", tt.text, err, tt.fails)
			}
		case err != nil || o.Min != tt.min || o.Max != tt.max:
			t.Errorf("%q: %+v, %v", tt.text, o, err)
		}
	}
}

func TestCiphers(t *testing.T) {
	const gcm, chacha = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
	tests := []struct {
		text  string
		want  []uint16
		fails string
	}{
		{text: "ECDHE-RSA-AES128-GCM-SHA256", want: []uint16{gcm}},
		{text: "tls_ecdhe_rsa_with_aes_128_gcm_sha256:ECDHE-RSA-AES128-GCM-SHA256", want: []uint16{gcm}},
		{text: "ECDHE-ECDSA-CHACHA20-POLY1305,ECDHE-RSA-AES128-GCM-SHA256", want: []uint16{chacha, gcm}},
		{text: "ECDHE-RSA-AES256-SHA", want: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA}},
		{text: "default"},
		{text: "TLS_AES_128_GCM_SHA256", fails: "belongs to TLS 1.3"},
		{text: "HIGH:!aNULL:!MD5", fails: `unknown cipher "HIGH"`},
		{text: "AES256-SHA", fails: "too weak"},
		{text: "AES128-GCM-SHA256", fails: "too weak"},
		{text: " ", fails: "no cipher"},
	}
	for _, tt := range tests {
		o, err := Parse("", tt.text)
		switch {
		case tt.fails != "":
			if err == nil || !strings.Contains(err.Error(), tt.fails) || !strings.Contains(err.Error(), "expected one or more of ECDHE-") {
				t.Errorf("%q: %v, want %q", tt.text, err, tt.fails)
			}
		case err != nil || !slices.Equal(o.Suites, tt.want):
			t.Errorf("%q: %+v, %v", tt.text, o, err)
		}
	}
	if _, err := Parse("TLSv1.3", "ECDHE-RSA-AES128-GCM-SHA256"); err == nil || !strings.Contains(err.Error(), "no effect") {
		t.Errorf("ciphers without effect: %v", err)
	}
}

// Every suite that an error names can be given.
func TestChoices(t *testing.T) {
	_, list, _ := strings.Cut(choices(), " of ")
	for name := range strings.SplitSeq(list, ", ") {
		if _, err := Parse("", name); err != nil {
			t.Error(err)
		}
	}
}

func TestAnd(t *testing.T) {
	read := func(protocols, ciphers string) Options {
		o, err := Parse(protocols, ciphers)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	const a, b = "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"
	const gcm = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
	tests := []struct {
		one, other Options
		v12, v13   bool // what is permitted, with suite a
	}{
		{Options{}, Options{}, true, true},
		{Options{}, read("TLSv1.3", ""), false, true},
		{read("TLSv1.2", ""), read("", a), true, false},
		{read("", a), read("", b+":"+a), true, true},
		{read("", a), read("", b), false, true},
		{read("TLSv1.2", ""), read("TLSv1.3", ""), false, false},
		{read("TLSv1.2", a), read("", b), false, false},
	}
	for _, tt := range tests {
		for _, pair := range [][2]Options{{tt.one, tt.other}, {tt.other, tt.one}} {
			o, err := pair[0].And(pair[1])
			if impossible := !tt.v12 && !tt.v13; impossible != errors.Is(err, ErrConflict) {
				t.Errorf("%+v and %+v: %v", pair[0], pair[1], err)
			}
			if err != nil {
				continue
			}
			if o.Permits(tls.VersionTLS12, gcm) != tt.v12 || o.Permits(tls.VersionTLS13, 1) != tt.v13 {
				t.Errorf("%+v and %+v: %+v", pair[0], pair[1], o)
			}
			var cfg tls.Config
			if o.Apply(&cfg); cfg.MinVersion < tls.VersionTLS12 || cfg.MaxVersion > tls.VersionTLS13 {
				t.Errorf("%+v", &cfg)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("TLSv1.2:TLSv1.3", "ECDHE-RSA-AES128-GCM-SHA256")
	f.Add("!tlsv1.2", "HIGH")
	f.Fuzz(func(t *testing.T, protocols, ciphers string) {
		o, err := Parse(protocols, ciphers)
		if err == nil && (o.Min > o.Max || o.Min != 0 && o.Min < tls.VersionTLS12) {
			t.Errorf("%q gives %+v", protocols, o)
		}
	})
}
