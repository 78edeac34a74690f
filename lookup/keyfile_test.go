package lookup

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"tabard/table"
)

// A key in a file is read again when the file changes, and only then; what is
// wrong with one file spoils no other certificate of the name.
func TestKeyFilesChange(t *testing.T) {
	files, f, ca := newCustodyFiles(t), newFixture(t), newAuthority(t, "CA", nil)
	s := f.service(fmt.Sprintf(vaultConf, files.dir))
	certs := f.table("certs")
	const name = "mx.example"
	chain, key := ca.server("ecdsa", nil, name)
	second, secondKey := ca.server("rsa", nil, name)
	files.write("a.key", key)
	files.write("b.key", secondKey)
	row := table.Row{chain, "file:" + files.path("a.key"), second, "file:" + files.path("b.key")}
	certs.set(table.Cert, name, row...)
	if first := s.custody.open(row); len(first.pairs) != 2 || first.err != nil || s.custody.open(row) != first {
		t.Errorf("%d pairs, %v; or read again", len(first.pairs), first.err)
	}
	serves := func(when, want, fault string) {
		t.Helper()
		got := "none"
		if leaf, err := opened(t, s, name); err == nil {
			got = leaf.PublicKeyAlgorithm.String()
		}
		faults := s.CertificateFaults()
		if got != want || (fault == "") != (len(faults) == 0) || fault != "" && !strings.Contains(faults[0].Cause, fault) {
			t.Errorf("%s: %s with %+v, want %s with %q", when, got, faults, want, fault)
		}
	}
	serves("both", "ECDSA", "")
	if err := os.Remove(files.path("a.key")); err != nil {
		t.Fatal(err)
	}
	serves("one file gone", "RSA", "row 1: bad certificate: open "+files.path("a.key"))
	files.write("a.key", secondKey)
	serves("another's key", "RSA", "does not match any certificate")
	files.write("a.key", key)
	serves("back again", "ECDSA", "")
	for _, file := range []string{"a.key", "b.key"} {
		if err := os.Remove(files.path(file)); err != nil {
			t.Fatal(err)
		}
	}
	serves("both gone", "ECDSA", "no such file")
}
