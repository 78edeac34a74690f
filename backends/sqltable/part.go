package sqltable

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tabard/internal/address"
)

// Part is what a parameter of a statement is bound to.
type Part uint8

// The parts. User and Domain are what Postfix calls %u and %d.
const (
	Key      Part = iota // the key; of query_auth, the user's name
	User                 // the key before its last @, or all of one without
	Domain               // the key behind its last @
	Password             // the password of query_auth
)

// Of returns the part that a key has. It is empty for a part that the key lacks.
func (p Part) Of(key string) string {
	switch p {
	case Key:
		return key
	case User:
		user, _ := address.Split(key)
		return user
	case Domain:
		_, domain := address.Split(key)
		return domain
	}
	return ""
}

// statement is SQL taken apart at its parameters. Between texts[i] and texts[i+1]
// stands marks[i].
type statement struct {
	texts []string
	marks []Part
}

// parse takes a statement apart; auth says that it has the parameters of
// query_auth. The semicolon at the end is left away.
func (d Dialect) parse(sql string, auth bool) (statement, error) {
	sql = strings.TrimRight(sql, "; \t\r\n")
	var st statement
	begin, count := 0, 0
	for _, m := range d.markers(sql) {
		var p Part
		var err error
		switch {
		case len(st.texts) > 0 && m.begin == begin:
			err = fmt.Errorf("parameter %s: a blank is missing between it and the one before", sql[m.begin:m.end])
		case m.brace && m.joined(sql):
			err = fmt.Errorf("placeholder {%s}: a blank is missing beside it", m.name)
		case m.brace:
			p, err = named(m.name, auth)
		case auth:
			p, err = d.ofAuth(m.name, sql[m.begin:m.end], &count)
		case d.Numbered && m.name != "1":
			err = fmt.Errorf("parameter %s: only $1 is known", sql[m.begin:m.end])
		}
		if err != nil {
			return statement{}, err
		}
		st.texts = append(st.texts, sql[begin:m.begin])
		st.marks = append(st.marks, p)
		begin = m.end
	}
	st.texts = append(st.texts, sql[begin:])
	return st, nil
}

// named returns the part that a placeholder in braces means.
func named(name string, auth bool) (Part, error) {
	switch {
	case name == "key":
		return Key, nil
	case name == "user":
		return User, nil
	case name == "domain":
		return Domain, nil
	case name == "password" && auth:
		return Password, nil
	case name == "password":
		return 0, errors.New("placeholder {password}: only query_auth has one")
	}
	return 0, fmt.Errorf("unknown placeholder {%s}; expected {key}, {user} or {domain}", name)
}

// ofAuth returns the part that a parameter of query_auth means: by its number, for
// a bare ? one more than the highest before it, as SQLite counts; or by its name.
// count is that highest number.
func (d Dialect) ofAuth(name, written string, count *int) (Part, error) {
	switch name {
	case "":
		*count++
		name = fmt.Sprint(*count)
	case "1", "user":
		*count = max(*count, 1)
	case "2", "password":
		*count = max(*count, 2)
	}
	switch {
	case name == "1":
		return Key, nil
	case name == "2":
		return Password, nil
	case !d.Numbered && name == "user":
		return Key, nil
	case !d.Numbered && name == "password":
		return Password, nil
	}
	return 0, fmt.Errorf("parameter %s: only %s is known, the user, and %s, the password", written, d.Mark+"1", d.Mark+"2")
}

// parts returns which parts the statement has, each once.
func (st statement) parts() []Part {
	all := slices.Clone(st.marks)
	slices.Sort(all)
	return slices.Compact(all)
}

// with returns the statement with its parameters written by write.
func (st statement) with(write func(Part) string) string {
	var b strings.Builder
	for i, text := range st.texts {
		b.WriteString(text)
		if i < len(st.marks) {
			b.WriteString(write(st.marks[i]))
		}
	}
	return b.String()
}
