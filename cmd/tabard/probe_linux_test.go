//go:build linux && (amd64 || arm64)

package main

import (
	"fmt"
	"os"
	"strings"

	"tabard/internal/sandbox/sandboxtest"
)

// forgetVar names system calls, with commas between them, that the kernel is not
// to know in the server.
const forgetVar = "TABARD_TEST_FORGET"

// serveProbes lets tests try things from inside a process of the server.
func serveProbes() {
	if err := sandboxtest.Serve(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "no probes:", err)
	}
}

// forgetCalls makes the kernel an old one, if a test says so.
func forgetCalls() {
	calls := os.Getenv(forgetVar)
	if calls == "" {
		return
	}
	if err := sandboxtest.Forget(strings.Split(calls, ",")...); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "calls are not forgotten:", err)
		os.Exit(1)
	}
}
