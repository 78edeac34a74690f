package main

import "github.com/spf13/cobra"

func newLogImport(*globals) *cobra.Command { return &cobra.Command{Use: "import"} }
