package ldap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"tabard/internal/ldaptest"
	"tabard/table"
)

// entries makes LDIF of entries with keys and lines of attributes.
func entries(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "dn: cn=e%d,dc=example,dc=org\nobjectClass: tEntry\n%s%s\n", i, attr("tKey", pairs[i]), pairs[i+1])
	}
	return b.String()
}

func values(name string, n int, format string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(attr(name, fmt.Sprintf(format, i)))
	}
	return b.String()
}

const anyConf = "basedn dc=example,dc=org\nalias_filter (tKey=%s)\nalias_attributes tValue\n"

func TestManyValues(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, entries(
		"thousand", values("tValue", 1000, "user%04d@example.org"),
		"many", values("tValue", maxValues+1, "u%d@x.example"),
		"large", values("tValue", 11, "%d"+strings.Repeat("x", 1<<20)),
	))
	tab := openConf(t, s, anyConf)
	row, err := tab.Lookup(t.Context(), table.Alias, "thousand")
	if err != nil || len(row) != 1000 || row[999] != "user0999@example.org" {
		t.Errorf("%d values, %v", len(row), err)
	}
	for _, key := range []string{"many", "large"} {
		if _, err := tab.Lookup(t.Context(), table.Alias, key); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v", key, err)
		}
	}
	// One that is too large spoils it for nobody who asks at the same time.
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			key := []string{"thousand", "large", "nobody", "many", "nobody", "thousand"}[i%6]
			row, err := tab.Lookup(t.Context(), table.Alias, key)
			ok := map[string]bool{"thousand": err == nil && len(row) == 1000, "nobody": errors.Is(err, table.ErrNotFound), "large": errors.Is(err, errTooLarge), "many": errors.Is(err, errTooLarge)}
			if !ok[key] {
				t.Errorf("%s: %d, %v", key, len(row), err)
			}
		})
	}
	wg.Wait()
}

// More entries than the server gives at once come in pages.
func TestPaging(t *testing.T) {
	s := directory(t, ldaptest.Options{DB: []string{"limits * size.soft=100 size.hard=100 size.pr=50 size.prtotal=unlimited", "limits dn.exact=cn=reader,dc=example,dc=org size.soft=100 size.hard=100 size.pr=50 size.prtotal=unlimited"}})
	var b strings.Builder
	b.WriteString("dn: cn=reader,dc=example,dc=org\nobjectClass: person\ncn: reader\nsn: r\nuserPassword: read\n\n")
	for i := range 250 {
		fmt.Fprintf(&b, "dn: cn=m%d,dc=example,dc=org\nobjectClass: tEntry\ntKey: list\ntValue: m%03d@example.org\n\n", i, i)
	}
	load(t, s, b.String())
	conf := fmt.Sprintf("url %s\nusername cn=reader,dc=example,dc=org\npassword read\n%s", s.URL, anyConf)
	tab := openText(t, conf+"page_size 40\n")
	row, err := tab.Lookup(t.Context(), table.Alias, "list")
	if err != nil || len(row) != 250 {
		t.Errorf("in pages: %d, %v", len(row), err)
	}
	if ok, err := tab.Check(t.Context(), table.Alias, "list"); !ok || err != nil {
		t.Errorf("check: %v, %v", ok, err)
	}
	// A part of an answer is no answer.
	if row, err := openText(t, conf+"page_size 0\n").Lookup(t.Context(), table.Alias, "list"); err == nil {
		t.Errorf("without pages: %d values", len(row))
	}
}

func TestBrokenValues(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, entries(
		"latin1", attr("tBlob", "M\xfcller"), "nul", attr("tBlob", "a\x00b"), "fine", attr("tBlob", "Müller"), "none", "",
	))
	tab := openConf(t, s, "basedn dc=example,dc=org\nalias_filter (tKey=%s)\nalias_attributes tBlob\ncredentials_filter (tKey=%s)\ncredentials_attributes tKey tBlob\nuserinfo_filter (tKey=%s)\nuserinfo_attributes tSecond tThird tValue")
	if row, err := tab.Lookup(t.Context(), table.Alias, "fine"); err != nil || row[0] != "Müller" {
		t.Errorf("fine: %q, %v", row, err)
	}
	for key, want := range map[string]string{"latin1": "is not UTF-8", "nul": "NUL character"} {
		for _, service := range []table.Service{table.Alias, table.Credentials} {
			if _, err := tab.Lookup(t.Context(), service, key); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: %v", service, key, err)
			}
		}
	}
	for _, service := range []table.Service{table.Alias, table.Credentials} {
		if _, err := tab.Lookup(t.Context(), service, "none"); !errors.Is(err, table.ErrNotFound) {
			t.Errorf("%s of an entry without: %v", service, err)
		}
	}
	if row, err := tab.Lookup(t.Context(), table.UserInfo, "none"); err != nil || len(row) != 3 {
		t.Errorf("userinfo of an entry without: %q, %v", row, err)
	}
}

func TestInjection(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, entries("secret", attr("tValue", "leaked"), "*)(tKey=*", attr("tValue", "odd"), `back\slash`, attr("tValue", "back")))
	tab := openConf(t, s, anyConf, "domain_filter (tKey=%s)", "auth bind", "auth_filter (tKey=%s)")
	for _, key := range []string{"*", "s*", "secret)(tKey=*", "*)(objectClass=*", `\73ecret`, "\x00", "secret\x00", "nobody)(|(tKey=*)", "(", ")", "&", "|(tKey=secret)", " secret", "secret  "} {
		if row, err := tab.Lookup(t.Context(), table.Alias, key); !errors.Is(err, table.ErrNotFound) {
			t.Errorf("%q = %q, %v", key, row, err)
		}
		if ok, err := tab.Check(t.Context(), table.Domain, key); ok || err != nil {
			t.Errorf("check %q = %v, %v", key, ok, err)
		}
		if ok, err := tab.Authenticate(t.Context(), key, "x"); ok || err != nil {
			t.Errorf("auth %q = %v, %v", key, ok, err)
		}
	}
	for key, want := range map[string]string{"*)(tkey=*": "odd", `back\slash`: "back"} {
		if row, err := tab.Lookup(t.Context(), table.Alias, key); err != nil || row[0] != want {
			t.Errorf("%q = %q, %v; want %s", key, row, err, want)
		}
	}
}

// Questions that wait at the same moment get each its own answer, also where
// entries answer several or the directory compares unlike us.
func TestGathered(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	var list []string
	for i := range 100 {
		list = append(list, fmt.Sprintf("user%d", i), attr("tKey", fmt.Sprintf("Also%d", i))+attr("tValue", fmt.Sprintf("v%d", i)))
	}
	list = append(list, "Straße", attr("tKey", "street")+attr("tValue", "road"))
	load(t, s, entries(list...))
	for _, conf := range []string{
		anyConf,
		"basedn dc=example,dc=org\nalias_filter (|(tKey=%s)(&(cn=x)(tKey=%s)))\nalias_attributes tValue\n",
		"basedn dc=example,dc=org\nalias_filter (&(objectClass=tEntry)(tKey:caseIgnoreMatch:=%s))\nalias_attributes tValue\n",
		// The server knows it by another name: nothing tells the entries apart.
		"basedn dc=example,dc=org\nalias_filter (2.25.112233445566778899001.1.1=%s)\nalias_attributes tValue\n",
	} {
		tab := openConf(t, s, conf)
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				key, want := fmt.Sprintf("user%d", i%120), fmt.Sprintf("[v%d]", i%120)
				if i%3 == 0 {
					key = fmt.Sprintf("also%d", i%120)
				}
				row, err := tab.Lookup(context.Background(), table.Alias, key)
				if i%120 >= 100 && !errors.Is(err, table.ErrNotFound) || i%120 < 100 && (err != nil || fmt.Sprint(row) != want) {
					t.Errorf("%s = %q, %v; want %s", key, row, err, want)
				}
				if row, err := tab.Lookup(context.Background(), table.Alias, "street"); err != nil || row[0] != "road" {
					t.Errorf("street = %q, %v", row, err)
				}
			})
		}
		wg.Wait()
	}
}

func TestPasswordChoice(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, entries(
		"several", attr("tSecond", "clear")+attr("tSecond", "{SSHA}abc")+attr("tSecond", "{CRYPT}$6$salt$hash")+attr("tSecond", "{SASL}x@Y"),
		"locked", attr("tSecond", "!")+attr("tSecond", "clear"), "one", attr("tSecond", "{MD5}abc"),
	))
	tab := openConf(t, s, "basedn dc=example,dc=org\ncredentials_filter (tKey=%s)\ncredentials_attributes tKey tSecond")
	for key, want := range map[string]string{"several": "{CRYPT}$6$salt$hash", "locked": "clear", "one": "{MD5}abc"} {
		if row, err := tab.Lookup(t.Context(), table.Credentials, key); err != nil || row[0] != key || row[1] != want {
			t.Errorf("%s: %q, %v; want %s", key, row, err, want)
		}
	}
}

func TestListsAndFormats(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, entries("a.example", attr("tValue", "mx.internal")+attr("tSecond", "10.0.0.0/8"), "bad", attr("tThird", "10/40")))
	tab := openConf(t, s, "basedn dc=example,dc=org\nrelayhost_filter (tKey=%s)\nrelayhost_attributes tValue\nrelayhost_format tls://%s:2525\n"+
		"fetch_netaddr_filter (tSecond=*)\nfetch_netaddr_attributes tSecond\nregex_filter (tSecond=*)\nregex_attributes tSecond")
	if row, err := tab.Lookup(t.Context(), table.RelayHost, "a.example"); err != nil || row[0] != "tls://mx.internal:2525" {
		t.Errorf("relayhost: %q, %v", row, err)
	}
	if ok, err := tab.Check(t.Context(), table.NetAddr, "10.1.2.3"); !ok || err != nil {
		t.Errorf("netaddr: %v, %v", ok, err)
	}
	if err := tab.Validate(t.Context(), table.NetAddr); err != nil {
		t.Errorf("validate: %v", err)
	}
	bad := openConf(t, s, "basedn dc=example,dc=org\nfetch_netaddr_filter (tThird=*)\nfetch_netaddr_attributes tThird")
	if err := bad.Validate(t.Context(), table.NetAddr); err == nil {
		t.Error("a network of 40 bits is valid")
	}
	if _, err := bad.Check(t.Context(), table.NetAddr, "10.1.2.3"); err == nil {
		t.Error("a network of 40 bits is matched")
	}
	if _, err := bad.Lookup(t.Context(), table.Alias, "x"); !errors.Is(err, table.ErrUnsupported) || !strings.Contains(err.Error(), "alias_filter") {
		t.Errorf("not configured: %v", err)
	}
	if _, err := bad.Fetch(t.Context(), table.Source); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("not configured: %v", err)
	}
}
