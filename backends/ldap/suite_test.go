package ldap

import (
	"encoding/pem"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"tabard/internal/ldaptest"
	"tabard/table"
	"tabard/table/tabletest"
)

// suiteColumns are the attributes that hold a record's values.
var suiteColumns = map[table.Service]string{
	table.Credentials: "tValue, tSecond", table.UserInfo: "tValue tSecond tThird", table.DKIM: "tValue tSecond",
}

func TestSuite(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	var n atomic.Int64
	tabletest.Run(t, func(t *testing.T, d tabletest.Data) table.Backend {
		base := fmt.Sprintf("ou=t%d,%s", n.Add(1), s.Suffix)
		var b strings.Builder
		fmt.Fprintf(&b, "dn: %s\nobjectClass: organizationalUnit\n", base)
		entries := 0
		for _, r := range d.Records {
			for _, lines := range suiteEntries(t, d, r) {
				entries++
				fmt.Fprintf(&b, "\ndn: cn=%d,%s\nobjectClass: tEntry\n%s%s", entries, base, attr("tKey", r.Key), lines)
			}
		}
		load(t, s, b.String())
		return suiteTable(t, s, d, base)
	})
}

// suiteTable opens a table for the data's service alone.
func suiteTable(t *testing.T, s *ldaptest.Server, d tabletest.Data, base string) table.Backend {
	t.Helper()
	lines := []string{"url " + s.URL, "username " + s.RootDN, "password " + ldaptest.Password, "basedn: " + base}
	service := d.Service.String()
	if !d.Mapping && (d.Service == table.Source || d.Service == table.RelayHost || table.Walked(d.Service)) {
		lines = append(lines, "fetch_"+service+"_filter (tKey=*)", "fetch_"+service+"_attributes tKey")
	}
	if d.Service != table.Source && d.Service != table.Regex {
		lines = append(lines, service+"_filter\t(&(objectClass=tEntry)(tKey=%s))")
		switch columns := suiteColumns[d.Service]; {
		case d.Service == table.Cert || d.Service == table.CA:
		case columns != "":
			lines = append(lines, service+"_attributes "+columns)
		case d.Mapping:
			lines = append(lines, service+"_attributes tValue")
		default:
			lines = append(lines, service+"_attributes tKey")
		}
	}
	b, err := tryOpen(t, strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// suiteEntries returns the attributes of each entry of a record.
func suiteEntries(t *testing.T, d tabletest.Data, r tabletest.Record) []string {
	t.Helper()
	var b strings.Builder
	switch d.Service {
	case table.Credentials, table.UserInfo, table.DKIM:
		for i, name := range []string{"tValue", "tSecond", "tThird"} {
			if i < len(r.Values) && r.Values[i] != "" {
				b.WriteString(attr(name, r.Values[i]))
			}
		}
	case table.Cert:
		var all []string
		for i := 0; i < len(r.Values); i += 2 {
			all = append(all, ders("userCertificate;binary", r.Values[i])+ders("pKCS8PrivateKey;binary", r.Values[i+1]))
		}
		return all
	case table.CA:
		b.WriteString(ders("cACertificate;binary", r.Values[0]))
	default:
		for _, v := range r.Values {
			b.WriteString(attr("tValue", v))
		}
	}
	return []string{b.String()}
}

// ders returns the blocks of PEM as values of an attribute, the last one first.
func ders(name, text string) string {
	var lines string
	for b, rest := pem.Decode([]byte(text)); b != nil; b, rest = pem.Decode(rest) {
		lines = attr(name, string(b.Bytes)) + lines
	}
	return lines
}
