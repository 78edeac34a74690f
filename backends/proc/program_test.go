package proc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"tabard/backends/static"
	"tabard/internal/config"
	"tabard/table"
	"tabard/table/tabletest"
)

// asProgram as the first argument makes the test binary a table program.
const asProgram = "table-program"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asProgram {
		program(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// program is a table program. Its first argument says how it behaves, the second
// is a file with the data that it serves.
func program(args []string) {
	mode := args[0]
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 4<<20)
	for in.Scan() && in.Text() != "config|ready" {
		if !strings.HasPrefix(in.Text(), "config|") {
			os.Exit(3)
		}
	}
	switch mode {
	case "mute":
		for in.Scan() {
		}
		return
	case "none":
		fmt.Println("register|ready")
	case "chatter":
		fmt.Println("hello, world")
	case "quitter":
		fmt.Fprintln(os.Stderr, "cannot reach \x1b[31mthe database\r\n second line")
		os.Exit(1)
	}
	b, data := serve(args)
	fmt.Printf("register|%s\nregister|nonsense\n", data.Service)
	if mode == "tell" {
		fmt.Println("register|changed")
	}
	fmt.Println("register|ready")
	var held []string
	turn := 0
	for in.Scan() {
		line := answer(in.Text(), b, mode, &turn)
		if mode != "hold" {
			fmt.Print(line)
			continue
		}
		// Answers several questions at once, the last one first.
		if held = append(held, line); len(held) == holds {
			for i := len(held) - 1; i >= 0; i-- {
				fmt.Print(held[i])
			}
			held = nil
		}
	}
}

// holds is how many questions the mode "hold" wants before it answers.
const holds = 64

// serve reads the data.
func serve(args []string) (*static.Table, tabletest.Data) {
	data := tabletest.Data{Service: table.Alias, Mapping: true, Records: []tabletest.Record{{Key: "root", Values: []string{"admin"}}}}
	if len(args) > 1 {
		text, err := os.ReadFile(args[1])
		if err != nil || json.Unmarshal(text, &data) != nil {
			os.Exit(4)
		}
	}
	if !data.Mapping {
		var list []string
		for _, r := range data.Records {
			list = append(list, r.Key)
		}
		return static.NewList(list, table.Options{}), data
	}
	var pairs []config.KeyVal
	for _, r := range data.Records {
		pairs = append(pairs, config.KeyVal{Key: r.Key, Value: r.Text(data.Service)})
	}
	return static.NewMap(pairs, table.Options{}), data
}

// answer makes the lines that answer a request. Keys that begin with "do-" ask
// for misbehaviour. turn is where the list is.
func answer(line string, b *static.Table, mode string, turn *int) string {
	f := strings.SplitN(line, "|", 8)
	ctx := context.Background()
	s, _ := table.ParseService(f[5])
	id := f[6]
	result := func(op, rest string) string { return op + "-result|" + id + "|" + rest + "\n" }
	key := ""
	if len(f) > 7 {
		key = f[7]
	}
	switch key {
	case "do-die":
		os.Exit(5)
	case "do-stall":
		<-time.After(time.Hour)
	case "do-skip":
		return ""
	case "do-garbage":
		return "what?\n"
	case "do-other-id":
		return "lookup-result|ffff0000|found|x\n"
	case "do-wrong-op":
		return result("check", "found")
	case "do-empty":
		return result("lookup", "found|")
	case "do-long":
		return result("lookup", "found|"+strings.Repeat("x", maxLine+10))
	case "do-binary":
		return result("lookup", "found|\xff\xfe")
	case "do-error":
		return result("lookup", "error|table is on fire")
	case "do-tell":
		return "changed|alias|root\nchanged|nonsense\nchanged\n" + result("lookup", "not-found")
	case "do-bars":
		return result("lookup", "found|a|b|c")
	}
	switch f[4] {
	case "check":
		if ok, _ := b.Check(ctx, s, key); ok {
			return result("check", "found")
		}
		return result("check", "not-found")
	case "lookup":
		row, err := b.Lookup(ctx, s, key)
		if err != nil {
			return result("lookup", "not-found")
		}
		return result("lookup", "found|"+row[0])
	}
	rows, _ := b.Fetch(ctx, s)
	if len(rows) == 0 {
		return result("fetch", "not-found")
	}
	n := *turn
	*turn = (n + 1) % len(rows)
	op := "fetch"
	if mode == "framework" {
		op = "lookup"
	}
	return result(op, "found|"+rows[n][0])
}
