package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
)

// shared is the variable by which a test program hands its server to its tests,
// and to programs that they start: port and directory, or why there is none.
const shared = "TABARD_TEST_POSTGRES"

// Main starts a server, runs the tests of a package, and stops the server: the
// whole of a TestMain.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// The tests get at it by Shared. They share it: who stops or pauses a server
// starts one of his own.
func Main(m *testing.M) int {
	if os.Getenv(shared) != "" {
		return m.Run() // a worker of a fuzz target
	}
	s, err := Start(context.Background(), Options{})
	value := ""
	if err != nil {
		value = "error " + err.Error()
	} else {
		value = fmt.Sprint(s.Port, " ", s.dir)
	}
	if err := os.Setenv(shared, value); err != nil {
		panic(err) // the name is well-formed
	}
	code := m.Run()
	if s != nil {
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			return 1
		}
	}
	return code
}

// Shared returns the server that Main started. It can be asked, not stopped.
func Shared(t testing.TB) *Server {
	t.Helper()
	s, err := parseShared(os.Getenv(shared))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parseShared(value string) (*Server, error) {
	s := &Server{}
	if _, err := fmt.Sscanf(value, "%d %s", &s.Port, &s.SocketDir); err != nil {
		if value == "" {
			value = "TestMain does not call pgtest.Main"
		}
		return nil, errors.New(value)
	}
	return s, nil
}

// Database makes an empty database on the shared server, for one test, and
// returns its URL.
func Database(t testing.TB, options ...string) string {
	t.Helper()
	s := Shared(t)
	name, err := s.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.URL(name, options...)
}
