package pgsource

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	c, err := Parse("postgres://u:p@a.example,b.example:5433/d?sslmode=disable&target_session_attrs=read-write&search_path=mail")
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "a.example" || len(c.Fallbacks) != 1 || c.Fallbacks[0].Port != 5433 || c.RuntimeParams["search_path"] != "mail" {
		t.Errorf("%+v", c)
	}
	if c.ConnectTimeout != DefaultConnectTimeout || c.RuntimeParams["application_name"] != "tabard" {
		t.Errorf("timeout %v, name %q", c.ConnectTimeout, c.RuntimeParams["application_name"])
	}
	c, err = Parse("host='/run/pg' user=u password='a \\' b' dbname=d connect_timeout=1 application_name=mine")
	if err != nil || c.Password != "a ' b" || c.ConnectTimeout.Seconds() != 1 || c.RuntimeParams["application_name"] != "mine" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestErrorsKeepTheSecret(t *testing.T) {
	for source, want := range map[string]string{
		"postgres://u:sec/ret@h/d":                                      "",
		"postgres://u:sec%zzret@h/d":                                    "",
		"postgres://u:secret@h:port/d":                                  "port",
		"postgres://u:secret@h/d?sslmode=no":                            "TLS",
		"host=h password=secret sslmode=no":                             "TLS",
		"host=h password=secret port=x":                                 "port",
		"host=h password='secret":                                       "",
		"password secret":                                               "",
		"postgres://u:secret@h/d?sslmode=verify-ca&sslrootcert=/nosuch": "/nosuch",
		"postgres://u:secret@h/d?target_session_attrs=some":             "target_session_attrs",
		"postgres://u@h/d?password=secret&connect_timeout=x":            "connect_timeout",
	} {
		_, err := Parse(source)
		if err == nil {
			t.Errorf("%s is accepted", source)
			continue
		}
		if strings.Contains(err.Error(), "sec") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
}
