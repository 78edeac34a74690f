package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/table"
)

func newIdentity(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "identity", "Client certificates that log in, and as whom")
	cmd.Long = `Identity edits which client certificates log in on listeners with cert-auth. An
identity is one of these, and the first that is there counts:

  sha256:HEX     SHA-256 of the public key (SubjectPublicKeyInfo)
  email:ADDRESS  a mail address in the subjectAltName
  dns:NAME       a host name in the subjectAltName
  dn:SUBJECT     the subject as RFC 4514 writes it: dn:CN=printer,O=Example

Only a certificate that the listener's ca vouches for is looked up at all.`
	cmd.AddCommand(e.identityAdd(),
		e.importer(provision.Identities(), "A user with several identities has several lines."),
		e.command("rm IDENTITY", "Take a login away; sessions that have it lose their next transaction", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveIdentity(ctx, a[0])
		}),
		lister(e, "List identities", []string{"USER", "IDENTITY"}, (*provision.DB).ListIdentities, func(r provision.IdentityRow) []string {
			return []string{r.User, r.Identity}
		}))
	return cmd
}

func (e *editor) identityAdd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "add USER [IDENTITY]",
		Short: "Let a client certificate log in as a user, by an identity or by its public key",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			r := provision.IdentityRow{User: args[0], Identity: second(args)}
			if (file == "") == (r.Identity == "") {
				return exitf(exUsage, "give an IDENTITY or --cert, one of them")
			}
			if file != "" {
				var err error
				if r.Identity, err = keyIdentity(file); err != nil {
					return err
				}
			}
			return e.with(context.Background(), func(ctx context.Context, db *provision.DB) error { return db.AddIdentity(ctx, r) })
		},
	}
	cmd.Flags().StringVar(&file, "cert", "", "PEM `file` with the certificate: its public key is the identity")
	return cmd
}

// keyIdentity is the identity of a certificate's public key.
func keyIdentity(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", withCode(exNoInput, err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", exitf(exDataErr, "%s: does not begin with a PEM certificate", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", exitf(exDataErr, "%s: %w", file, err)
	}
	return "sha256:" + table.KeyDigest(cert), nil
}
