package password

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tool is a program of an unpacked Debian package.
type tool struct {
	path      string
	libraries string
	root      string
}

// findTool looks below the directory that an environment variable names, then in
// .scratch at the top of the repository, then for an installed program.
func findTool(t *testing.T, env, scratch, program string) tool {
	t.Helper()
	for _, root := range []string{os.Getenv(env), filepath.Join("..", "..", ".scratch", scratch), "/"} {
		path := filepath.Join(root, program)
		if root == "" || exec.Command("test", "-x", path).Run() != nil {
			continue
		}
		return tool{path: path, libraries: libraries(t, root), root: root}
	}
	t.Fatalf("there is no %s: run ./test, which unpacks it, or name its directory in %s", program, env)
	return tool{}
}

// libraries returns the directories of an unpacked package that hold shared ones.
func libraries(t *testing.T, root string) string {
	t.Helper()
	if root == "/" {
		return ""
	}
	var dirs []string
	err := filepath.WalkDir(filepath.Join(root, "usr", "lib"), func(path string, _ fs.DirEntry, err error) error {
		if dir := filepath.Dir(path); strings.Contains(filepath.Base(path), ".so") && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(dirs, ":")
}

func (k tool) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), k.path, args...)
	// doveadm wants no configuration of a server for this.
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+k.libraries, "DOVECONF_ENV=1")
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// Schemes of Dovecot that are left out on purpose: they keep the password in a
// form that opens other protocols, cut it, or are broken.
var refused = []string{"DES-CRYPT", "CRAM-MD5", "HMAC-MD5", "DIGEST-MD5", "OTP", "PLAIN-MD4", "PLAIN-TRUNC"}

// Every scheme that Dovecot's own tool makes is verified, or refused on purpose.
func TestDovecotHashes(t *testing.T) {
	doveadm := findTool(t, "TABARD_DOVECOT_ROOT", "dovecot", "usr/bin/doveadm")
	list, err := doveadm.run(t, "pw", "-l")
	if err != nil {
		t.Fatal(err)
	}
	schemes := strings.Fields(list)
	if len(schemes) < 20 {
		t.Fatalf("doveadm pw -l: %q", schemes)
	}
	judge := Policy{AllowPlain: true}
	for _, scheme := range schemes {
		for _, s := range []string{scheme, scheme + ".B64", scheme + ".HEX"} {
			args := []string{"pw", "-s", s, "-p", horse}
			if scheme == "DIGEST-MD5" {
				args = append(args, "-u", "alice")
			}
			stored, err := doveadm.run(t, args...)
			if err != nil {
				t.Fatalf("doveadm pw -s %s: %v", s, err)
			}
			checkHash(t, judge, stored, slices.Contains(refused, scheme))
		}
	}
}

// checkHash expects a hash to be opened by its password alone, or to be refused.
func checkHash(t *testing.T, p Policy, stored string, refused bool) {
	t.Helper()
	ok, err := p.Verify(stored, horse)
	if refused {
		if ok || !errors.Is(err, ErrScheme) && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, %v; want it refused", stored, ok, err)
		}
		return
	}
	if !ok || err != nil {
		t.Errorf("%s: %v, %v; want it opened", stored, ok, err)
	}
	if ok, err := p.Verify(stored, "wrong"); ok || err != nil {
		t.Errorf("%s: a wrong password: %v, %v", stored, ok, err)
	}
}

// And every one that OpenLDAP makes.
func TestOpenLDAPHashes(t *testing.T) {
	slappasswd := findTool(t, "TABARD_SLAPD_ROOT", "slapd", "usr/sbin/slappasswd")
	modules := filepath.Join(slappasswd.root, "usr", "lib", "ldap")
	for _, scheme := range []string{
		"SSHA", "SHA", "SMD5", "MD5", "ARGON2", "SSHA256", "SSHA384", "SSHA512", "SHA256", "SHA384", "SHA512",
	} {
		args := []string{"-n", "-s", horse, "-h", "{" + scheme + "}", "-o", "module-path=" + modules}
		switch {
		case scheme == "ARGON2":
			args = append(args, "-o", "module-load=argon2")
		case strings.HasSuffix(scheme, "256"), strings.HasSuffix(scheme, "384"), strings.HasSuffix(scheme, "512"):
			args = append(args, "-o", "module-load=pw-sha2")
		}
		stored, err := slappasswd.run(t, args...)
		if err != nil {
			t.Fatalf("slappasswd -h {%s}: %v", scheme, err)
		}
		checkHash(t, Policy{}, stored, false)
	}
	for _, salt := range []string{"$6$%.8s", "$5$rounds=6000$%.8s", "$1$%.8s", "$2b$05$%.22s"} {
		stored, err := slappasswd.run(t, "-n", "-s", horse, "-h", "{CRYPT}", "-c", salt)
		if err != nil {
			t.Fatalf("slappasswd -c %s: %v", salt, err)
		}
		checkHash(t, Policy{}, stored, false)
	}
}
