package srs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tabard/internal/address"
)

func at(d int) time.Time { return time.Unix(1_800_000_000, 0).Add(time.Duration(d) * day) }

func parse(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return a
}

func TestRoundTrip(t *testing.T) {
	r := New(4*day, "secret")
	for _, s := range []string{
		"user@first.example", "a=b=c@first.example", "User+Tag@first.example", `"a b"@first.example`, "x@[192.0.2.1]",
		"dörte@first.example", strings.Repeat("x", 64) + "@first.example", "srs@first.example", "SRS2=x@first.example", "SRS1=x@first.example",
	} {
		out, err := r.Forward(parse(t, s), "own.example", at(0))
		if err != nil || out.Domain != "own.example" || !strings.HasPrefix(out.Local, "SRS0=") {
			t.Errorf("%s becomes %s, %v", s, out, err)
			continue
		}
		parse(t, out.String())
		for d := range 5 {
			if back, err := r.Reverse(out, at(d)); err != nil || back.String() != s {
				t.Errorf("after %d days %s becomes %s, %v; want %s", d, out, back, err, s)
			}
		}
		if _, err := r.Reverse(out, at(-1)); err != nil {
			t.Errorf("a clock that is behind: %v", err)
		}
		for _, d := range []int{-2, 5, 500, 1022} {
			if _, err := r.Reverse(out, at(d)); !errors.Is(err, ErrExpired) {
				t.Errorf("after %d days: %v", d, err)
			}
		}
	}
}

// The form is the one that other forwarders know.
func TestForm(t *testing.T) {
	out, err := New(day, "secret").Forward(parse(t, "user@First.example"), "own.example", time.Unix(33*86400, 0))
	if got := out.String(); err != nil || len(got) != len("SRS0=HHHH=BB=first.example=user@own.example") ||
		got[9:] != "=BB=first.example=user@own.example" {
		t.Errorf("%s, %v", got, err)
	}
	out, err = New(day, "secret").Forward(parse(t, "u@bücher.example"), "own.example", at(0))
	if err != nil || !strings.Contains(out.Local, "=xn--bcher-kva.example=u") {
		t.Errorf("U-labels: %s, %v", out, err)
	}
}

// Two forwarders, and more: a bounce goes from the last to the first, and from
// there to the sender.
func TestSeveralForwarders(t *testing.T) {
	a, b, c := New(4*day, "a's"), New(4*day, "b's"), New(4*day, "c's")
	sender := parse(t, "user@first.example")
	atA, _ := a.Forward(sender, "a.example", at(0))
	atB, errB := b.Forward(atA, "b.example", at(0))
	atC, errC := c.Forward(atB, "c.example", at(1))
	for _, out := range []address.Address{atB, atC} {
		if !strings.HasPrefix(out.Local, "SRS1=") || !strings.HasSuffix(out.Local, "=a.example="+atA.Local[4:]) {
			t.Errorf("%s, %v, %v", out, errB, errC)
		}
	}
	for out, r := range map[address.Address]*Rewriter{atB: b, atC: c} {
		back, err := r.Reverse(out, at(4))
		if err != nil || back != atA {
			t.Errorf("%s leads to %s, %v; want %s", out, back, err, atA)
		}
		if back, err := a.Reverse(back, at(4)); err != nil || back != sender {
			t.Errorf("%s, %v", back, err)
		}
		if _, err := r.Reverse(out, at(6)); !errors.Is(err, ErrExpired) {
			t.Errorf("%s after 6 days: %v", out, err)
		}
	}
	// Of another make: a separator, signature and stamp of its own.
	for _, local := range []string{"SRS0+longhash=whenever=first.example=user", "srs0-x=first.example=user"} {
		foreign := address.Address{Local: local, Domain: "other.example"}
		out, err := b.Forward(foreign, "b.example", at(0))
		back, err2 := b.Reverse(out, at(400))
		if err != nil || err2 != nil || !strings.EqualFold(back.String(), foreign.String()) {
			t.Errorf("%s becomes %s, %v, then %s, %v", foreign, out, err, back, err2)
		}
	}
}

func TestKeys(t *testing.T) {
	sender := parse(t, "user@first.example")
	out, _ := New(4*day, "old").Forward(sender, "own.example", at(0))
	if back, err := New(4*day, "new", "", "old").Reverse(out, at(0)); err != nil || back != sender {
		t.Errorf("the key before: %s, %v", back, err)
	}
	if _, err := New(4*day, "new", "older").Reverse(out, at(0)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a key that is gone: %v", err)
	}
	if again, _ := New(4*day, "new", "old").Forward(sender, "own.example", at(0)); again == out {
		t.Error("the key before still signs")
	}
}

func TestForged(t *testing.T) {
	r := New(4*day, "secret")
	out, _ := r.Forward(parse(t, "user@first.example"), "own.example", at(0))
	one, _ := r.Forward(parse(t, "SRS0=abcd=AB=first.example=user@a.example"), "own.example", at(0))
	if _, err := r.Reverse(address.Address{Local: strings.ToLower(out.Local), Domain: "own.example"}, at(0)); err != nil {
		t.Errorf("in lower case: %v", err)
	}
	for name, a := range map[string]address.Address{
		"other user":   {Local: strings.Replace(out.Local, "=user", "=root", 1), Domain: "own.example"},
		"other day":    {Local: out.Local[:10] + "ZZ" + out.Local[12:], Domain: "own.example"},
		"other domain": {Local: out.Local, Domain: "other.example"},
		"other kind":   {Local: strings.Replace(out.Local, "SRS0", "SRS1", 1), Domain: "own.example"},
		"first hop":    {Local: strings.Replace(one.Local, "a.example", "z.example", 1), Domain: "own.example"},
		"no signature": {Local: "SRS0=first.example=user", Domain: "own.example"},
		"separator":    {Local: strings.Replace(out.Local, "SRS0=", "SRS0+", 1), Domain: "own.example"},
		"short":        {Local: "SRS0=abcd", Domain: "own.example"}, "empty": {Local: "SRS0=abcd=", Domain: "own.example"},
		"not SRS": {Local: "user", Domain: "own.example"}, "nothing": {},
	} {
		if back, err := r.Reverse(a, at(0)); !errors.Is(err, ErrInvalid) || back != (address.Address{}) {
			t.Errorf("%s: %s, %v", name, back, err)
		}
	}
}

func TestTooLong(t *testing.T) {
	r := New(day, "secret")
	long := address.Address{Local: strings.Repeat("x", 120), Domain: strings.Repeat("y.", 60) + "example"}
	if out, err := r.Forward(long, "own.example", at(0)); !errors.Is(err, ErrTooLong) {
		t.Errorf("%s, %v", out, err)
	}
}

// Whatever a stranger sends, it is an address of ours or an error; and whatever
// is rewritten is an address that leads back.
func FuzzSRS(f *testing.F) {
	r := New(4*day, "secret", "old")
	for _, s := range []string{"user", "SRS0=abcd=AB=x.example=user", "SRS1=abcd=x.example==abcd=AB=y.example=u", "SRS1+a=b=c", "SRS1=a==", "SRS0=="} {
		f.Add(s, "first.example")
	}
	f.Fuzz(func(t *testing.T, local, domain string) {
		a := address.Address{Local: local, Domain: domain}
		if back, err := r.Reverse(a, at(0)); err == nil {
			if _, err := address.Parse(back.String()); err != nil {
				t.Fatalf("%q leads to %q", a, back)
			}
		}
		a, err := address.Parse(a.String())
		if err != nil || a.Domain == "" {
			return
		}
		out, err := r.Forward(a, "own.example", at(0))
		if err != nil {
			return
		}
		if again, err := address.Parse(out.String()); err != nil || again != out {
			t.Fatalf("%q is rewritten to %q, %v", a, out, err)
		}
		if back, err := r.Reverse(out, at(0)); err == nil && strings.HasPrefix(out.Local, "SRS0") && back.Local != a.Local {
			t.Fatalf("%q is rewritten to %q, which leads to %q", a, out, back)
		} else if err != nil && !errors.Is(err, ErrExpired) && strings.HasPrefix(out.Local, "SRS0") {
			t.Fatalf("%q is rewritten to %q: %v", a, out, err)
		}
	})
}
