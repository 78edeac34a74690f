package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What `tabard migrate` makes as root is for the processes that use it: the queue
// belongs to the queue's user, a database to the owner of its directory.
func TestMigrateOwners(t *testing.T) {
	who, err := user.Current()
	if err == nil && who.Uid == "0" {
		who, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(who.Uid)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tables, spool := filepath.Join(dir, "tables"), filepath.Join(dir, "spool")
	if err := os.Mkdir(tables, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(tables, uid, -1); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("table mail %q\naction \"out\" relay\nmatch for any action \"out\"\nqueue %q\n",
		"sqlite:"+tables+"/mail.db", "sqlite:"+spool+"/queue.db")
	for _, p := range []string{procLookup, procSMTPD, procQueue, procMTA, procDeliver} {
		text += fmt.Sprintf("process %s user %q\n", p, who.Username)
	}
	conf := filepath.Join(dir, "tabard.conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := newRoot()
	cmd.SetOut(new(strings.Builder))
	cmd.SetArgs([]string{"migrate", "-c", conf})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{tables + "/mail.db", spool, spool + "/queue.db"} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != uid {
			t.Errorf("%s belongs to %+v, want user %d", path, info.Sys(), uid)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v", path, info.Mode())
		}
	}
}

// Addresses given for a server that is there already are refused, not ignored.
func TestQuickstartKeepsAddresses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tabard.conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--smtp", "--smtps", "--submission"} {
		cmd := newRoot()
		cmd.SetArgs([]string{"quickstart", dir, flag, "127.0.0.1:1"})
		if err := cmd.Execute(); exitCode(err) != exUsage || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
