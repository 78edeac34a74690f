package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tabard/internal/posttest"
)

// postmapKeys is how many keys each postmap is asked for.
const postmapKeys = 50_000

// postmap asks the same of Postfix' maps: n processes of postmap -q, with keys on
// their standard input.
func (b *tables) postmap(ctx context.Context, s subject, n int) error {
	root, err := posttest.FindRoot()
	if err != nil {
		return err
	}
	main, err := b.postfixConfig(root)
	if err != nil {
		return err
	}
	libraries := libraryDirs(root)
	var wg sync.WaitGroup
	errs := make([]error, n)
	began := time.Now()
	for i := range n {
		var keys bytes.Buffer
		for range postmapKeys {
			fmt.Fprintln(&keys, domain(rand.IntN(s.rows)))
		}
		wg.Go(func() {
			cmd := exec.CommandContext(ctx, filepath.Join(root, "usr/sbin/postmap"), "-c", main, "-q", "-", s.postmap)
			cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
			cmd.Stdin = &keys
			var complaints bytes.Buffer
			cmd.Stderr = &complaints
			out, err := cmd.Output()
			if lines := bytes.Count(out, []byte("\n")); err != nil || lines != postmapKeys {
				errs[i] = fmt.Errorf("%d answers of %d: %w: %.300s", lines, postmapKeys, errors.Join(err), complaints.String())
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Printf("%-9s %-8s %8d %12.0f\n", s.kind, "postmap", n, float64(n*postmapKeys)/time.Since(began).Seconds())
	return nil
}

// postfixConfig makes a configuration in which the unpacked plugins are found.
func (b *tables) postfixConfig(root string) (string, error) {
	dir := filepath.Join(b.dir, "postfix")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	plugins := filepath.Join(root, "usr/lib/postfix")
	maps := ""
	for _, kind := range []string{"pgsql", "sqlite", "ldap"} {
		maps += fmt.Sprintf("%s\t%s/postfix-%s.so\tdict_%s_open\n", kind, plugins, kind, kind)
	}
	return dir, errors.Join(
		os.WriteFile(filepath.Join(dir, "main.cf"), []byte("compatibility_level = 3.6\nmail_owner = daemon\nsetgid_group = games\ndefault_privs = nobody\nshlib_directory = "+plugins+"\nmeta_directory = "+dir+"\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "dynamicmaps.cf"), []byte(maps), 0o644))
}

// libraryDirs returns where an unpacked package has its shared libraries.
func libraryDirs(root string) []string {
	var dirs []string
	_ = filepath.WalkDir(filepath.Join(root, "usr/lib"), func(path string, _ fs.DirEntry, err error) error {
		if dir := filepath.Dir(path); strings.Contains(filepath.Base(path), ".so") && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		return err
	})
	return dirs
}
