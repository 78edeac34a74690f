package main

import (
	"context"
	"crypto/x509"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/config"
	"tabard/internal/control"
	"tabard/lookup"
	"tabard/table"
)

// certInfo is one line of `cert ls`.
type certInfo struct {
	Source   string    `json:"source"`
	ID       int64     `json:"id,omitempty"` // of a row
	Name     string    `json:"name"`
	Key      string    `json:"key"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after,omitzero"`
	Days     int       `json:"days"`
	State    string    `json:"state"`
}

// inUse is the state of a certificate that is served.
const inUse = "in use"

func (e *editor) certList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List certificates, how long they last, and which are in use",
		Long: `Ls lists the certificates of the table. From a running server it lists those of other
sources too, LDAP and files for instance, that were asked for, and what it found unfit.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := e.g.load()
			if err != nil {
				return err
			}
			t, src, err := provisioning(cfg, e.table)
			if err != nil {
				return err
			}
			var infos []certInfo
			if err := withDatabase(context.Background(), src, func(ctx context.Context, db *provision.DB) error {
				all, err := db.ListCertificates(ctx, lookup.Servable(cfg.Custody))
				infos = certRows(cfg, t.Name, all, time.Now())
				return err
			}); err != nil {
				return err
			}
			infos = append(infos, fromServer(cfg, ofTable(t.Name), time.Now())...)
			rows := make([][]string, 0, len(infos))
			for _, c := range infos {
				rows = append(rows, []string{c.Name, dash(c.Key), dash(c.Issuer), days(c), c.Source, c.State})
			}
			return e.g.printList(cmd, append([]certInfo{}, infos...), []string{"NAME", "KEY", "ISSUER", "DAYS", "SOURCE", "STATE"}, rows)
		},
	}
}

func days(c certInfo) string {
	if c.NotAfter.IsZero() {
		return "-"
	}
	return strconv.Itoa(c.Days)
}

// certRows tells of every certificate that the rows have a key for.
func certRows(cfg *config.Config, name string, all []provision.Certificate, now time.Time) []certInfo {
	used := certTables(cfg)
	newest := newestOf(all, now)
	var infos []certInfo
	for _, c := range all {
		line := certInfo{Source: ofTable(name), ID: c.ID, Name: c.Name}
		if c.Fault != nil {
			line.State = "broken: " + c.Fault.Error()
			infos = append(infos, line)
		}
		for _, leaf := range c.Leaves {
			line.Key, line.Issuer, line.NotAfter, line.Days = lookup.KeyName(leaf), leaf.Issuer.CommonName, leaf.NotAfter, daysLeft(leaf, now)
			line.State = validity(leaf, now)
			switch {
			case line.State == "valid" && leaf.NotBefore.Before(newest[kindOf(c.Name, leaf)]):
				line.State = "valid, a later one is in use"
			case line.State == "valid" && used[name]:
				line.State = inUse
			case line.State == "valid":
				line.State = "valid, but no pki <" + name + "> uses it"
			}
			infos = append(infos, line)
		}
	}
	return infos
}

// ofTable is a table as the source of a certificate.
func ofTable(name string) string { return "table " + name }

// certKind is what certificates take each other's place in: a name and a kind of key.
type certKind struct {
	name string
	key  x509.PublicKeyAlgorithm
}

func kindOf(name string, leaf *x509.Certificate) certKind {
	return certKind{table.Fold(name), leaf.PublicKeyAlgorithm}
}

// newestOf returns when the newest of each kind that is valid now became so.
func newestOf(all []provision.Certificate, now time.Time) map[certKind]time.Time {
	newest := make(map[certKind]time.Time)
	for _, c := range all {
		for _, leaf := range c.Leaves {
			if k := kindOf(c.Name, leaf); validity(leaf, now) == "valid" && leaf.NotBefore.After(newest[k]) {
				newest[k] = leaf.NotBefore
			}
		}
	}
	return newest
}

// certTables are the tables that certificates are served from.
func certTables(cfg *config.Config) map[string]bool {
	used := make(map[string]bool)
	for _, l := range cfg.Listeners {
		for _, t := range l.PKITables {
			used[string(t)] = true
		}
	}
	for _, a := range cfg.Actions {
		used[string(a.PKITable)] = true
	}
	return used
}

// fromServer is what a running server adds to the rows of a source: certificates of
// other sources, and faults of which the rows do not tell. Without a server it is
// nothing.
func fromServer(cfg *config.Config, source string, now time.Time) []certInfo {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	c, err := control.Dial(controlSocket(cfg))
	if err != nil {
		return nil
	}
	a, end, err := lookupOf(ctx, c)
	if err != nil {
		return nil
	}
	defer end()
	known, err := a.Certificates(ctx)
	if err != nil {
		return nil
	}
	var infos []certInfo
	for _, k := range known {
		line := certInfo{Source: k.Source, Name: k.Name, Key: k.Key, Issuer: k.Issuer, NotAfter: k.NotAfter, Days: daysUntil(k.NotAfter, now), State: k.Fault}
		switch {
		case k.InUse:
			line.State = inUse
		case k.Serving:
			line.State += "; another one is served"
		}
		if k.Source != source || k.Serving {
			infos = append(infos, line)
		}
	}
	return infos
}

func daysLeft(c *x509.Certificate, now time.Time) int { return daysUntil(c.NotAfter, now) }

func daysUntil(t, now time.Time) int { return int(t.Sub(now).Hours() / 24) }

func validity(c *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(c.NotBefore):
		return "not valid before " + c.NotBefore.UTC().Format(time.RFC3339)
	case now.After(c.NotAfter):
		return "expired"
	}
	return "valid"
}
