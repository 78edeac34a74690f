package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tabard/queue"
)

const (
	sortedLines = 1000 // a sorted listing has, unless more are asked for
	sortedPage  = 1000 // envelopes asked for at a time: the whole queue is sorted for each page
)

func sortNames() string {
	var names []string
	for _, k := range queue.SortKeys() {
		names = append(names, string(k))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// parseOrder reads a key with or without a '-' before it; the empty one is none.
func parseOrder(text string) (queue.Order, error) {
	key, reverse := strings.CutPrefix(text, "-")
	o := queue.Order{By: queue.SortKey(key), Reverse: reverse}
	if text != "" && !slices.Contains(queue.SortKeys(), o.By) {
		return o, exitf(exUsage, "--sort %q: want %s", text, sortNames())
	}
	return o, nil
}

// printSorted prints the first lines of an order, and says when there are more.
func (g *globals) printSorted(ctx context.Context, cmd *cobra.Command, q queue.Admin, f queue.Filter, o queue.Order, limit int) error {
	left := limit
	if limit == 0 {
		left = sortedLines
	}
	more := false
	err := g.printPages(cmd.OutOrStdout(), func(do func([]queue.Listed) error) error {
		for after := (*queue.Place)(nil); ; {
			page, err := q.Sorted(ctx, f, o, after, min(left+1, sortedPage)) // one more, to know of it
			if err != nil {
				return filterError(err)
			}
			list := page.List
			if more = len(list) > left; more {
				list = list[:left]
			}
			if left -= len(list); len(list) > 0 {
				if err := do(list); err != nil {
					return err
				}
			}
			if !page.More || more {
				return nil
			}
			after = &page.Last
		}
	})
	if more && limit == 0 && err == nil {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "there are more than these %d: --limit prints more, filters choose\n", sortedLines)
	}
	return err
}
