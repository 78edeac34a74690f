package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/selfca"
)

// selfSignedDays is how long a certificate of an own authority lasts: what
// browsers and mail programs accept at most.
const selfSignedDays = 397

func newCert(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "cert", "Certificates and their private keys")
	cmd.AddCommand(e.certAdd(), e.certList(),
		e.importer(provision.Certs(), `Chain and key are PEM in the line, or chain_file and key_file name files, relative to
the directory of the imported file. A name with several certificates has several
lines. --replace replaces all certificates of the names that the file has.`),
		e.command("rm NAME", "Remove every certificate of a name; the next handshake goes without", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveCertificates(ctx, a[0])
		}))
	return cmd
}

// certSource is where `cert add` takes certificates from.
type certSource struct {
	chains, keys []string // files
	selfSigned   bool
	keyType      string
	names        []string // further names of a self-signed certificate
	caOut        string
	keyRef       string
	seal         bool
}

func (e *editor) certAdd() *cobra.Command {
	var src certSource
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Store a certificate chain and its key; the next handshake for NAME serves it",
		Long: `Add stores a certificate chain with its private key under NAME: a host name, or
"*.domain" for every host of a domain. What was stored under NAME is replaced in one
step, and the next handshake serves the new one.

Give --chain and --key once, or twice for an ECDSA and an RSA certificate. One PEM
file that holds both needs --chain alone. --self-signed makes a certificate of an
own authority, whose certificate is added to the authorities called NAME.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			pairs, authority, err := src.pairs(args[0])
			if err == nil && src.seal {
				err = e.sealPairs(pairs)
			}
			if err != nil {
				return err
			}
			return e.with(context.Background(), func(ctx context.Context, db *provision.DB) error {
				if authority != "" {
					return db.SetOwnCertificate(ctx, args[0], pairs[0], authority)
				}
				return db.SetCertificates(ctx, args[0], pairs...)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&src.chains, "chain", nil, "PEM `file` with the chain, leaf first")
	f.StringArrayVar(&src.keys, "key", nil, "PEM `file` with the private key")
	f.BoolVar(&src.selfSigned, "self-signed", false, "make a certificate of an own authority")
	f.StringVar(&src.keyType, "type", string(selfca.ECDSA), "key of a self-signed certificate: ecdsa, rsa or ed25519")
	f.StringArrayVar(&src.names, "also", nil, "further `name` or address in a self-signed certificate")
	f.StringVar(&src.caOut, "ca-out", "", "write the own authority's certificate to this `file`")
	f.StringVar(&src.keyRef, "key-ref", "", "store no key but where it is: this `file`, which lookup reads")
	f.BoolVar(&src.seal, "seal", false, "seal the private key, see tabard seal")
	cmd.MarkFlagsMutuallyExclusive("chain", "self-signed")
	cmd.MarkFlagsMutuallyExclusive("key", "key-ref", "self-signed")
	cmd.MarkFlagsMutuallyExclusive("key-ref", "seal")
	cmd.MarkFlagsOneRequired("chain", "self-signed")
	return cmd
}

// pairs reads or makes what is to be stored.
func (s certSource) pairs(name string) (pairs []provision.Pair, authority string, err error) {
	if s.selfSigned {
		return s.makeOwn(name)
	}
	if len(s.keys) > 0 && len(s.keys) != len(s.chains) {
		return nil, "", exitf(exUsage, "%d --chain but %d --key", len(s.chains), len(s.keys))
	}
	if s.keyRef != "" && len(s.chains) != 1 {
		return nil, "", exitf(exUsage, "--key-ref goes with one --chain")
	}
	for i, file := range s.chains {
		chain, err := os.ReadFile(file)
		if err != nil {
			return nil, "", withCode(exNoInput, err)
		}
		p := provision.Pair{Chain: string(chain)}
		if i < len(s.keys) {
			key, err := os.ReadFile(s.keys[i])
			if err != nil {
				return nil, "", withCode(exNoInput, err)
			}
			p.Key = string(key)
		}
		if s.keyRef != "" {
			path, err := filepath.Abs(s.keyRef)
			if err != nil {
				return nil, "", err
			}
			p.Key = "file:" + path
		}
		pairs = append(pairs, p)
	}
	return pairs, "", nil
}

func (s certSource) makeOwn(name string) ([]provision.Pair, string, error) {
	pair, ca, err := selfSigned(append([]string{name}, s.names...), selfca.KeyType(s.keyType))
	if err != nil {
		return nil, "", withCode(exUsage, err)
	}
	if s.caOut != "" {
		if err := os.WriteFile(s.caOut, []byte(ca), 0o644); err != nil {
			return nil, "", withCode(exCantCreat, err)
		}
	}
	return []provision.Pair{pair}, ca, nil
}

// selfSigned makes an authority, and a certificate by it for names.
func selfSigned(names []string, kt selfca.KeyType) (pair provision.Pair, authority string, err error) {
	now := time.Now()
	ca, err := selfca.New("Tabard's own authority for "+names[0], now.Add(-time.Hour))
	if err != nil {
		return pair, "", err
	}
	chain, key, err := ca.Issue(selfca.Request{Names: names, Key: kt, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, selfSignedDays)})
	if err != nil {
		return pair, "", err
	}
	return provision.Pair{Chain: string(chain), Key: string(key)}, string(ca.PEM()), nil
}
