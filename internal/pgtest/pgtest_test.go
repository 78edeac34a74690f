package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func answers(t *testing.T, url string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var n int
	return conn.QueryRow(ctx, "SELECT 1").Scan(&n)
}

func TestShared(t *testing.T) {
	url := Database(t)
	if err := answers(t, url); err != nil {
		t.Error(err)
	}
	if Database(t) == url {
		t.Error("two tests share a database")
	}
	if err := answers(t, Shared(t).SocketURL("postgres")); err != nil {
		t.Errorf("by the UNIX socket: %v", err)
	}
	if err := Shared(t).Kill(); err != nil {
		t.Error(err)
	}
	if err := answers(t, url); err != nil {
		t.Errorf("a test stopped the shared server: %v", err)
	}
	if _, err := parseShared("error no server"); err == nil || err.Error() != "error no server" {
		t.Errorf("without a server: %v", err)
	}
}

func TestControl(t *testing.T) {
	ctx := t.Context()
	s, err := Start(ctx, Options{Dir: "", TLS: true, Settings: []string{"max_connections = 30"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := s.dir
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("directory is left: %v", err)
		}
	})
	if err := answers(t, s.URL("postgres", "sslmode=verify-full", "sslrootcert="+s.CAFile)); err != nil {
		t.Errorf("TLS: %v", err)
	}
	if err := s.Exec(ctx, "postgres", "CREATE TABLE kept (); CREATE ROLE with_password; CREATE ROLE u LOGIN PASSWORD 'right' IN ROLE with_password"); err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]bool{"right": true, "wrong": false} {
		if err := answers(t, s.URL("postgres", "user=u", "password="+password)); (err == nil) != want {
			t.Errorf("password %s: %v", password, err)
		}
	}
	for what, stop := range map[string]func() error{"stop": s.Stop, "kill": s.Kill} {
		if err := stop(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := answers(t, s.URL("postgres")); err == nil {
			t.Errorf("after %s it answers", what)
		}
		if err := s.Launch(ctx); err != nil {
			t.Fatalf("after %s: %v\n%s", what, err, s.Log())
		}
		if err := s.Exec(ctx, "postgres", "SELECT FROM kept"); err != nil {
			t.Errorf("after %s: %v", what, err)
		}
	}
}

func TestPause(t *testing.T) {
	s, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT 1")
		answer <- err
	}()
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	select {
	case err := <-answer:
		t.Errorf("a paused server answers: %v", err)
	case <-short.Done():
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("after Resume: %v", err)
	}
}

func TestFindBin(t *testing.T) {
	t.Setenv("TABARD_PG_BIN", t.TempDir())
	if _, err := FindBin(); err != nil {
		t.Errorf("a wrong TABARD_PG_BIN hides the others: %v", err)
	}
	if release("/x/15/bin") <= release("/x/9.6/bin") || release("/x/15/bin") <= release("/x/local/bin") {
		t.Error("the newest release is not the greatest")
	}
}

func TestBadSettingsAreTold(t *testing.T) {
	s, err := Start(t.Context(), Options{Settings: []string{"nosuch_setting = 1"}})
	if err == nil {
		s.Close()
		t.Fatal("started")
	}
	if !strings.Contains(fmt.Sprint(err), "nosuch_setting") {
		t.Errorf("%v", err)
	}
}
