// Command tabard is a mail transfer agent whose whole working knowledge comes
// from tables. One binary holds the daemon's processes and the tools to steer
// it; see `tabard --help` and docs/.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	// The supervisor starts its children under these names (internal/privsep).
	if process, ok := strings.CutPrefix(os.Args[0], "tabard: "); ok {
		os.Exit(childMain(process))
	}
	os.Exit(programMain(filepath.Base(os.Args[0]), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// programMain behaves as the program called name: tabard, or one of the names
// that other software calls a mailer by.
func programMain(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	switch name {
	case "sendmail", "send-mail":
		return sendmailMain(args, stdin, stdout, stderr)
	case "mailq":
		return execute(append([]string{"queue", "ls", "--mailq"}, args...), stdin, stdout, stderr)
	case "newaliases":
		return sendmailMain([]string{"-bi"}, stdin, stdout, stderr)
	}
	return execute(args, stdin, stdout, stderr)
}

// execute runs the command line and returns its exit code.
func execute(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	understood := false
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		err := errors.Join(cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups())
		understood = err == nil
		return err
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if !understood {
		err = withCode(exUsage, err) // a word or flag that is not ours, or too few
	}
	if err != nil && !errors.Is(err, errSilent) {
		_, _ = fmt.Fprintf(stderr, "tabard: %v\n", err)
	}
	return exitCode(err)
}
