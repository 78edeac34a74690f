package ldap

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"tabard/internal/ldaptest"
	"tabard/table"
)

// BenchmarkLookups asks a slapd on the same machine; nothing is cached.
func BenchmarkLookups(b *testing.B) {
	const entries = 20_000
	s := directory(b, ldaptest.Options{DB: []string{"index tKey eq"}})
	var ldif strings.Builder
	for i := range entries {
		fmt.Fprintf(&ldif, "dn: cn=%d,dc=example,dc=org\nobjectClass: tEntry\ntKey: user%d@example.org\ntValue: target%d\n\n", i, i, i)
	}
	load(b, s, ldif.String())
	tab := openConf(b, s, "basedn dc=example,dc=org\nalias_filter (&(objectClass=tEntry)(tKey=%s))\nalias_attributes tValue\ndomain_filter (&(objectClass=tEntry)(tKey=%s))\n")
	var n atomic.Int64
	ask := func() error {
		i := n.Add(7919) % entries
		row, err := tab.Lookup(context.Background(), table.Alias, fmt.Sprintf("user%d@example.org", i))
		if err == nil && row[0] != fmt.Sprintf("target%d", i) {
			err = fmt.Errorf("user%d = %q", i, row)
		}
		return err
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		defer reportCPU(b, s.Pid())()
		for b.Loop() {
			if err := ask(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, callers := range []int{8, 32} {
		b.Run(fmt.Sprintf("callers-per-cpu-%d", callers), func(b *testing.B) {
			b.SetParallelism(callers)
			b.ReportAllocs()
			defer reportCPU(b, s.Pid())()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := ask(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
