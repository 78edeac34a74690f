package tabletest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/table"
)

// Opener loads data into a new backend. The suite closes what it returns.
type Opener func(t *testing.T, data Data) table.Backend

// Run checks every service that a backend of this kind carries.
func Run(t *testing.T, open func(t *testing.T, data Data) table.Backend) {
	t.Run("lookup", func(t *testing.T) { runLookups(t, open) })
	t.Run("check", func(t *testing.T) { runChecks(t, open) })
	t.Run("fetch", func(t *testing.T) { runFetches(t, open) })
	t.Run("cert", func(t *testing.T) { runCertificates(t, open) })
	t.Run("keys", func(t *testing.T) { runBadKeys(t, open) })
	t.Run("context", func(t *testing.T) { runContext(t, open) })
	t.Run("close", func(t *testing.T) { runClose(t, open) })
	t.Run("concurrent", func(t *testing.T) { runConcurrent(t, open) })
}

// opened returns the table over a backend, which is closed after the test.
func opened(t *testing.T, open Opener, d Data) *table.Table {
	t.Helper()
	b := open(t, d)
	tab := table.New("suite", b, 0)
	t.Cleanup(func() { tab.Close() })
	return tab
}

// lookupCase asks key and expects the parsed answer to print as want; empty
// means not found.
type lookupCase struct{ key, want string }

func runLookups(t *testing.T, open Opener) {
	for _, tt := range lookupTests() {
		t.Run(tt.data.Service.String(), func(t *testing.T) {
			tab := opened(t, open, tt.data)
			for _, c := range tt.cases {
				checkLookup(t, tab, tt.data.Service, c)
			}
		})
	}
}

func checkLookup(t *testing.T, tab *table.Table, s table.Service, c lookupCase) {
	t.Helper()
	got, err := Print(context.Background(), tab, s, c.key)
	if c.want == "" {
		if !errors.Is(err, table.ErrNotFound) {
			t.Errorf("lookup %q = %q, %v; want not found", c.key, got, err)
		}
		return
	}
	if err != nil || got != c.want {
		t.Errorf("lookup %q = %q, %v; want %q", c.key, got, err, c.want)
	}
}

// URLs returns the URLs of relays, in their order.
func URLs(relays []table.Relay) []string {
	var urls []string
	for _, r := range relays {
		urls = append(urls, r.URL)
	}
	return urls
}

// Print looks key up by the typed method of the service and returns the answer
// as text.
func Print(ctx context.Context, tab *table.Table, s table.Service, key string) (string, error) {
	switch s {
	case table.Alias:
		v, err := tab.Aliases(ctx, key)
		return strings.Trim(fmt.Sprint(v), "[]"), err
	case table.Credentials:
		v, err := tab.Credentials(ctx, key)
		return v.User + " " + v.Password, err
	case table.UserInfo:
		v, err := tab.UserInfo(ctx, key)
		return fmt.Sprintf("%d %d %q", v.UID, v.GID, v.Home), err
	case table.MailAddrMap:
		v, err := tab.MailAddrMap(ctx, key)
		return strings.Trim(fmt.Sprint(v), "[]"), err
	case table.RelayHost:
		v, err := tab.RelayHosts(ctx, key)
		return strings.Join(URLs(v), " "), err
	case table.AddrName:
		row, err := tab.Lookup(ctx, s, key)
		if err != nil {
			return "", err
		}
		return table.ParseAddrName(row)
	}
	return printText(ctx, tab, s, key)
}

func printText(ctx context.Context, tab *table.Table, s table.Service, key string) (string, error) {
	switch s {
	case table.CertAuth:
		return tab.CertUser(ctx, key)
	case table.Config:
		return tab.ConfigText(ctx, key)
	case table.TLSPolicy:
		v, err := tab.TLSPolicy(ctx, key)
		return strings.TrimSpace(v.Level.String() + " " + strings.Join(v.Names, ":")), err
	case table.DKIM:
		v, err := tab.DKIMKeys(ctx, key)
		var out []string
		for _, k := range v {
			out = append(out, fmt.Sprintf("%s:%T%s", k.Selector, k.Key, k.File))
		}
		return strings.Join(out, " "), err
	}
	return "", fmt.Errorf("no test for %s", s)
}

func runChecks(t *testing.T, open Opener) {
	for _, tt := range checkTests() {
		t.Run(tt.data.Service.String(), func(t *testing.T) {
			tab := opened(t, open, tt.data)
			for _, key := range tt.yes {
				if ok, err := tab.Check(context.Background(), tt.data.Service, key); !ok || err != nil {
					t.Errorf("check %q = %v, %v; want true", key, ok, err)
				}
			}
			for _, key := range tt.no {
				if ok, err := tab.Check(context.Background(), tt.data.Service, key); ok || err != nil {
					t.Errorf("check %q = %v, %v; want false", key, ok, err)
				}
			}
		})
	}
}

func runFetches(t *testing.T, open Opener) {
	ctx := context.Background()
	t.Run("source", func(t *testing.T) {
		tab := opened(t, open, Data{Service: table.Source, Records: list("192.0.2.2", "192.0.2.1", "2001:db8::1")})
		got, err := tab.FetchSources(ctx)
		if diff := cmp.Diff([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}, strings.Fields(strings.Trim(fmt.Sprint(got), "[]"))); diff != "" || err != nil {
			t.Errorf("sources: %v\n%s", err, diff)
		}
	})
	t.Run("relayhost", func(t *testing.T) {
		tab := opened(t, open, Data{Service: table.RelayHost, Records: list("smtps://label@a.example", "tls://b.example:2525")})
		got, err := tab.FetchRelayHosts(ctx)
		if diff := cmp.Diff([]string{"smtps://label@a.example", "tls://b.example:2525"}, URLs(got)); diff != "" || err != nil {
			t.Errorf("relay hosts: %v\n%s", err, diff)
		}
	})
}

// runBadKeys asks what a stranger may send.
func runBadKeys(t *testing.T, open Opener) {
	ctx := context.Background()
	tab := opened(t, open, Data{Service: table.Alias, Mapping: true, Records: []Record{{"root", []string{"admin"}}}})
	for _, key := range []string{"a\nb", "a\rb", "a\x00b", strings.Repeat("x", table.MaxKey+1)} {
		if _, err := tab.Lookup(ctx, table.Alias, key); !errors.Is(err, table.ErrKey) {
			t.Errorf("lookup %.20q: %v; want a bad key", key, err)
		}
		if _, err := tab.Check(ctx, table.Alias, key); !errors.Is(err, table.ErrKey) {
			t.Errorf("check %.20q: %v; want a bad key", key, err)
		}
	}
	for _, key := range []string{"", "'; DROP TABLE aliases; --", "%", "_", "*", "\xff\xfe", "root ", strings.Repeat("x", table.MaxKey), "ro" + "ot%"} {
		if row, err := tab.Lookup(ctx, table.Alias, key); !errors.Is(err, table.ErrNotFound) {
			t.Errorf("lookup %.20q = %q, %v; want not found", key, row, err)
		}
	}
	checkLookup(t, tab, table.Alias, lookupCase{"root", "admin"})
}

func runContext(t *testing.T, open Opener) {
	tab := opened(t, open, Data{Service: table.Alias, Mapping: true, Records: []Record{{"root", []string{"admin"}}}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tab.Lookup(ctx, table.Alias, "root"); !errors.Is(err, context.Canceled) {
		t.Errorf("lookup with a cancelled context: %v", err)
	}
	if _, err := tab.Check(ctx, table.Alias, "root"); !errors.Is(err, context.Canceled) {
		t.Errorf("check with a cancelled context: %v", err)
	}
	checkLookup(t, tab, table.Alias, lookupCase{"root", "admin"})
}

func runClose(t *testing.T, open Opener) {
	b := open(t, Data{Service: table.Alias, Mapping: true, Records: []Record{{"root", []string{"admin"}}}})
	if _, err := b.Lookup(context.Background(), table.Alias, "root"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	// A late question is an error, and never "not found".
	if _, err := b.Lookup(context.Background(), table.Alias, "nobody"); err == nil || errors.Is(err, table.ErrNotFound) {
		t.Errorf("lookup after Close: %v; want an error that is not ErrNotFound", err)
	}
}

func runConcurrent(t *testing.T, open Opener) {
	var records []Record
	for i := range 50 {
		records = append(records, Record{fmt.Sprintf("user%d", i), []string{fmt.Sprintf("target%d", i)}})
	}
	tab := opened(t, open, Data{Service: table.Alias, Mapping: true, Records: records})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i, r := range slices.Backward(records) {
				got, err := Print(context.Background(), tab, table.Alias, r.Key)
				if want := fmt.Sprintf("target%d", i); err != nil || got != want {
					t.Errorf("lookup %q = %q, %v", r.Key, got, err)
				}
			}
		})
	}
	wg.Wait()
}

// list makes the records of a list.
func list(keys ...string) []Record {
	var r []Record
	for _, k := range keys {
		r = append(r, Record{Key: k})
	}
	return r
}
