package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages of every subcommand into a directory",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return withCode(exCantCreat, err)
			}
			header := &doc.GenManHeader{Title: "TABARD", Section: "8", Source: "Tabard"}
			return withCode(exCantCreat, doc.GenManTree(cmd.Root(), header, args[0]))
		},
	}
}
