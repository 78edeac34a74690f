package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/queue"
)

// steered is a queue as commands see it: what it answers, and what was asked.
type steered struct {
	queue.Admin
	held  map[string]bool
	down  error
	asked []string
}

func (s *steered) Release(_ context.Context, kind queue.HoldKind, value string) (int, error) {
	s.asked = append(s.asked, fmt.Sprint(kind, " ", value))
	switch {
	case s.down != nil:
		return 0, s.down
	case !s.held[value]:
		return 0, rpc.ErrNotFound
	}
	return 3, nil
}

// printing returns a command, and where it prints.
func printing() (*cobra.Command, *strings.Builder) {
	cmd, out := &cobra.Command{}, &strings.Builder{}
	cmd.SetOut(out)
	cmd.SetErr(io.Discard)
	return cmd, out
}

// A name that is not held does not keep the others from being released; a server
// that is away does.
func TestReleaseGoesOn(t *testing.T) {
	what := holdFlags{destination: []string{"a", "b"}, sender: []string{"c"}, rule: []string{"d"}}
	for _, tt := range []struct {
		q     steered
		asked int
		out   string
		fault string
		code  int
	}{
		{steered{held: map[string]bool{"b": true, "d": true}}, 4, "destination b: 3 envelopes due\nrule d: 3 envelopes due\n", "destination a is not held\nsender c is not held", exDataErr},
		{steered{held: map[string]bool{"a": true, "b": true, "c": true, "d": true}}, 4, "", "", 0},
		{steered{down: errors.New("gone")}, 1, "", "gone", 1},
	} {
		cmd, out := printing()
		err := what.each(func(kind queue.HoldKind, value string) error {
			return release(t.Context(), cmd, &tt.q, kind, value)
		})
		if len(tt.q.asked) != tt.asked || exitCode(err) != tt.code || !strings.Contains(out.String(), tt.out) || err != nil && err.Error() != tt.fault {
			t.Errorf("%+v: %v, prints %q", tt, err, out)
		}
	}
}

// Programs find the same kind of keys in whatever is printed as JSON.
func TestJSONKeys(t *testing.T) {
	for _, v := range []any{
		queue.Listed{}, queue.Shown{}, queue.Stats{}, queue.HeldCount{}, routeState{}, explanation{}, status{},
		lookup.Problem{}, lookup.Answer{}, lookup.Change{}, certInfo{}, caInfo{}, dkimInfo{},
		provision.IdentityRow{}, provision.User{}, provision.AliasRow{}, provision.SenderRow{}, provision.RelayRow{}, provision.RelayCredential{},
		provision.PolicyRow{}, provision.Protection{}, provision.Resealed{}, provision.Imported{}, provision.ConfigVersion{},
	} {
		checkKeys(t, reflect.TypeOf(v), reflect.TypeOf(v).String(), map[reflect.Type]bool{})
	}
}

func checkKeys(t *testing.T, typ reflect.Type, path string, seen map[reflect.Type]bool) {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		checkKeys(t, typ.Elem(), path, seen)
		return
	case reflect.Struct:
	default:
		return
	}
	if seen[typ] || typ == reflect.TypeFor[time.Time]() || typ.Implements(reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()) {
		return
	}
	seen[typ] = true
	snake := regexp.MustCompile(`^([a-z][a-z0-9_]*(,.*)?|-)$`)
	for f := range typ.Fields() {
		tag := f.Tag.Get("json")
		if f.IsExported() && !f.Anonymous && !snake.MatchString(tag) {
			t.Errorf("%s.%s has the key %q", path, f.Name, tag)
		}
		if tag != "-" && (f.IsExported() || f.Anonymous) {
			checkKeys(t, f.Type, path+"."+f.Name, seen)
		}
	}
}
