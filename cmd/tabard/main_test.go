package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tabard/internal/privsep"
)

func TestMain(m *testing.M) {
	// The daemon starts its own program again for each process: that is this
	// test binary.
	_, child := privsep.ChildName(os.Args)
	if child {
		serveProbes()
	}
	forgetCalls()
	if child || os.Getenv(asProgram) != "" {
		main()
		return
	}
	testscript.Main(m, map[string]func(){"tabard": main, "sendmail": main, "mailq": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
