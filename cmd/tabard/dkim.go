package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/config"
	"tabard/lookup"
	"tabard/table"
)

func newDKIM(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "dkim", "Keys that sign mail, and the DNS records to publish for them")
	cmd.AddCommand(e.dkimAdd(), e.dkimList(), e.dkimRecord(),
		e.importer(provision.DKIMKeys(), `A key is PEM, base64 of PEM or of its DER, or file:/path, in the line; or key_file
names a file, relative to the directory of the imported file. tabard dkim record
prints what to publish. --replace changes the keys of selectors that are there.`),
		e.command("rm DOMAIN SELECTOR", "Remove a key; mail is no longer signed with it", cobra.ExactArgs(2), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveDKIMKey(ctx, a[0], a[1])
		}))
	return cmd
}

// dkimSource is where `dkim add` takes a key from.
type dkimSource struct {
	kind   string
	bits   int
	key    string // a file
	keyRef string
	seal   bool
}

func (e *editor) dkimAdd() *cobra.Command {
	var src dkimSource
	cmd := &cobra.Command{
		Use:   "add DOMAIN SELECTOR",
		Short: "Make or store a key that signs mail of DOMAIN, and print the DNS record for it",
		Long: `Add makes a private key, or takes one by --key or --key-ref, and stores it for mail
that is signed as SELECTOR of DOMAIN. What the selector had is replaced. Where an
action says relay dkim <table>, mail is signed with it from the next attempt on.

It prints the TXT record to publish, as a zone file has it. All keys of a domain sign:
to change keys, add one under another selector, and remove the old one later.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if src.kind == provision.DKIMEd25519 && cmd.Flags().Changed("bits") {
				return exitf(exUsage, "--bits is of rsa keys: one of ed25519 has always the same size")
			}
			return e.addDKIM(cmd, src, args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVar(&src.kind, "type", provision.DKIMRSA, "make a key of this `type`: rsa, or ed25519, which many verifiers do not know")
	f.IntVar(&src.bits, "bits", 2048, "size of an rsa key that is made, 1024 to 4096")
	f.StringVar(&src.key, "key", "", "store the private key in this `file` (- is standard input)")
	f.StringVar(&src.keyRef, "key-ref", "", "store no key but where it is: this `file`, which lookup reads")
	f.BoolVar(&src.seal, "seal", false, "seal the private key, see tabard seal")
	cmd.MarkFlagsMutuallyExclusive("key", "key-ref", "type")
	cmd.MarkFlagsMutuallyExclusive("key", "key-ref", "bits")
	cmd.MarkFlagsMutuallyExclusive("key-ref", "seal")
	return cmd
}

// addDKIM stores a key, once it is known to be one that a server can sign with.
func (e *editor) addDKIM(cmd *cobra.Command, src dkimSource, domain, selector string) error {
	cfg, err := e.g.load()
	if err != nil {
		return err
	}
	domain, selector, err = provision.DKIMNames(domain, selector)
	if err != nil {
		return withCode(exDataErr, err)
	}
	text, record, err := src.ready(cmd, cfg, domain, selector)
	if err != nil {
		return err
	}
	if err := e.within(context.Background(), cfg, func(ctx context.Context, db *provision.DB) error {
		replaced, err := db.SetDKIMKey(ctx, domain, selector, text)
		if err == nil && replaced {
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "the key that %s had is replaced: publish the new record in place of the old one\n", record.Name)
		}
		return err
	}); err != nil {
		return err
	}
	if e.g.json {
		return printJSON(cmd.OutOrStdout(), record)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), record)
	return err
}

// ready returns the text to store, and the record of a key that it was opened to.
func (s dkimSource) ready(cmd *cobra.Command, cfg *config.Config, domain, selector string) (text string, record provision.DKIMRecord, err error) {
	if text, err = s.text(cmd); err != nil {
		return "", record, err
	}
	if s.seal {
		with, err := sealer(cfg)
		if err != nil {
			return "", record, err
		}
		if text, err = with.SealDKIM(text); err != nil {
			return "", record, withCode(exDataErr, err)
		}
	}
	public, err := lookup.Signable(cfg.Custody)(table.Row{selector, text})
	if err == nil {
		record, err = provision.NewDKIMRecord(domain, selector, public[0])
	}
	return text, record, withCode(exDataErr, err)
}

// text makes or reads a private key, or says where it is.
func (s dkimSource) text(cmd *cobra.Command) (string, error) {
	switch {
	case s.key != "":
		return readInput(cmd, s.key)
	case s.keyRef != "":
		path, err := filepath.Abs(s.keyRef)
		return "file:" + path, err
	}
	text, err := provision.NewDKIMKey(s.kind, s.bits)
	return text, withCode(exUsage, err)
}

// dkimKeys are the keys of the editor's table, which is named.
func (e *editor) dkimKeys() (cfg *config.Config, name string, all []provision.DKIMKey, err error) {
	if cfg, err = e.g.load(); err != nil {
		return nil, "", nil, err
	}
	t, src, err := provisioning(cfg, e.table)
	if err != nil {
		return nil, "", nil, err
	}
	err = withDatabase(context.Background(), src, func(ctx context.Context, db *provision.DB) error {
		all, err = db.ListDKIMKeys(ctx, lookup.Signable(cfg.Custody))
		return err
	})
	return cfg, t.Name, all, err
}

// dkimInfo is one line of `dkim ls`.
type dkimInfo struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
	Type     string `json:"type,omitempty"`
	Bits     int    `json:"bits,omitempty"`
	Kept     string `json:"kept"`
	State    string `json:"state"`
}

func (e *editor) dkimList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the keys that sign mail, how they are kept, and whether they are in use",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, name, all, err := e.dkimKeys()
			if err != nil {
				return err
			}
			infos, rows := []dkimInfo{}, [][]string{}
			for _, k := range all {
				info := describeDKIM(cfg, name, k)
				infos = append(infos, info)
				rows = append(rows, []string{info.Domain, info.Selector, dash(info.Type), bitsOrDash(info.Bits), info.Kept, info.State})
			}
			return e.g.printList(cmd, infos, []string{"DOMAIN", "SELECTOR", "TYPE", "BITS", "KEPT", "STATE"}, rows)
		},
	}
}

func describeDKIM(cfg *config.Config, name string, k provision.DKIMKey) dkimInfo {
	info := dkimInfo{Domain: k.Domain, Selector: k.Selector, Kept: k.Kept, State: inUse}
	err := k.Fault
	if err == nil {
		info.Type, info.Bits, err = provision.DKIMKind(k.Public)
	}
	switch {
	case err != nil:
		info.State = "broken: " + err.Error()
	case !dkimTables(cfg)[name]:
		info.State = "no relay dkim <" + name + "> uses it"
	}
	return info
}

// dkimTables are the tables whose keys sign mail.
func dkimTables(cfg *config.Config) map[string]bool {
	used := make(map[string]bool)
	for _, a := range cfg.Actions {
		used[string(a.DKIM)] = true
	}
	return used
}

func (e *editor) dkimRecord() *cobra.Command {
	return &cobra.Command{
		Use:   "record DOMAIN [SELECTOR]",
		Short: "Print the DNS records to publish for the keys of a domain",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, _, all, err := e.dkimKeys()
			if err != nil {
				return err
			}
			records, err := dkimRecords(all, args[0], second(args))
			if e.g.json {
				return errors.Join(printJSON(cmd.OutOrStdout(), records), err)
			}
			for _, r := range records {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), r)
			}
			return err
		},
	}
}

// dkimRecords are the records of a domain's keys, or of one; and what is wrong with
// the others.
func dkimRecords(all []provision.DKIMKey, domain, selector string) ([]provision.DKIMRecord, error) {
	records, faults, found := []provision.DKIMRecord{}, []error(nil), false
	for _, k := range all {
		if !k.Of(domain, selector) {
			continue
		}
		found = true
		r, err := provision.DKIMRecord{}, k.Fault
		if err == nil {
			r, err = provision.NewDKIMRecord(k.Domain, k.Selector, k.Public)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("selector %s of %s: %w", k.Selector, k.Domain, err))
			continue
		}
		records = append(records, r)
	}
	if !found {
		return records, exitf(exDataErr, "dkim key of %s: %w", domain, provision.ErrNone)
	}
	return records, withCode(exDataErr, errors.Join(faults...))
}

func bitsOrDash(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}
