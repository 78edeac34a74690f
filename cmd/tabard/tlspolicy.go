package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/table"
)

func newTLSPolicy(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "tls-policy", "How much TLS mail to a domain, or to a relay, has to have")
	cmd.Long = `Tls-policy edits what relay actions with tls-policy require of the channel. DOMAIN is
the destination domain or the host of a relay URL, *.PARENT or .PARENT for every name below
it, or *. POLICY is one of these, with protocols= and ciphers= behind it if need be:

  none                 do not even try TLS
  may                  TLS if the server offers it
  encrypt              TLS, whoever the server is
  fingerprint=SHA256   TLS, with this certificate or public key
  verify [match=NAME]  TLS, with a verified certificate for the host
  secure [match=NAME]  TLS, with a verified certificate for the destination

dane, dane-only and sts are stored, but not supported yet: mail to DOMAIN waits.

No policy lowers what the scheme of a relay URL promises.`
	cmd.AddCommand(
		e.importer(provision.Policies(), "A policy is written as it is with set."),
		e.command("set DOMAIN POLICY...", "Set the policy of a domain", cobra.MinimumNArgs(2), func(ctx context.Context, db *provision.DB, a []string) error {
			row := provision.PolicyRow{Domain: a[0], Policy: strings.Join(a[1:], " ")}
			if err := db.SetPolicy(ctx, row); err != nil {
				return err
			}
			if p, err := table.ParseTLSPolicy(table.Row{row.Policy}); err == nil && !p.Level.Supported() {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "warning: level %s is not supported yet: mail to %s waits\n", p.Level, row.Domain)
			}
			return nil
		}),
		e.command("rm DOMAIN", "Remove the policy of a domain", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemovePolicy(ctx, a[0])
		}),
		lister(e, "List policies", []string{"DOMAIN", "POLICY"}, (*provision.DB).ListPolicies, func(r provision.PolicyRow) []string {
			return []string{r.Domain, r.Policy}
		}))
	return cmd
}
