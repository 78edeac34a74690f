package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/table"
)

func newCA(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "ca", "Authorities: trust anchors that certificates are verified with")
	cmd.AddCommand(e.caAdd(), e.caGet(), e.caList(),
		e.command("rm NAME", "Remove an authority", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveAuthority(ctx, a[0])
		}))
	return cmd
}

func (e *editor) caAdd() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME FILE.pem",
		Short: "Store a bundle of trust anchors (- is standard input); what NAME had is replaced",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			pem, err := readInput(cmd, args[1])
			if err != nil {
				return err
			}
			return e.with(context.Background(), func(ctx context.Context, db *provision.DB) error {
				return db.SetAuthority(ctx, args[0], pem)
			})
		},
	}
}

func (e *editor) caGet() *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME",
		Short: "Print an authority's certificates as PEM",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(context.Background(), func(ctx context.Context, db *provision.DB) error {
				pem, err := db.Authority(ctx, args[0])
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write([]byte(pem))
				return err
			})
		},
	}
}

// caInfo is one line of `ca ls`: one certificate or CRL of a bundle.
type caInfo struct {
	Name     string    `json:"name"`
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	Days     int       `json:"days"`
	State    string    `json:"state"`
}

func (e *editor) caList() *cobra.Command {
	return lister(e, "List authorities and how long they last", []string{"NAME", "SUBJECT", "DAYS", "STATE"},
		func(db *provision.DB, ctx context.Context) ([]caInfo, error) {
			names, err := db.ListAuthorities(ctx)
			var infos []caInfo
			for _, name := range names {
				pem, err := db.Authority(ctx, name)
				if err != nil {
					return nil, err
				}
				infos = append(infos, describeCA(name, pem, time.Now())...)
			}
			return infos, err
		},
		func(c caInfo) []string {
			return []string{c.Name, dash(c.Subject), strconv.Itoa(c.Days), c.State}
		})
}

func describeCA(name, pem string, now time.Time) []caInfo {
	authorities, err := table.ParseCA(table.Row{pem})
	if err != nil {
		return []caInfo{{Name: name, State: "broken: " + err.Error()}}
	}
	var infos []caInfo
	for _, c := range authorities.Anchors {
		info := caInfo{Name: name, Subject: c.Subject.String(), NotAfter: c.NotAfter, Days: daysLeft(c, now), State: validity(c, now)}
		if !c.IsCA {
			info.State = "broken: not a certificate of an authority"
		}
		infos = append(infos, info)
	}
	for _, l := range authorities.CRLs {
		infos = append(infos, describeCRL(name, l, now))
	}
	return infos
}

func describeCRL(name string, l *x509.RevocationList, now time.Time) caInfo {
	info := caInfo{
		Name: name, Subject: "CRL of " + l.Issuer.String(), NotAfter: l.NextUpdate,
		Days: int(l.NextUpdate.Sub(now).Hours() / 24), State: fmt.Sprintf("%d revoked", len(l.RevokedCertificateEntries)),
	}
	if now.After(l.NextUpdate) {
		info.State = "expired: no certificate of this issuer verifies"
	}
	return info
}
