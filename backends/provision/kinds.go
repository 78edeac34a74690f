package provision

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tabard/internal/config"
	"tabard/internal/password"
	"tabard/table"
)

// Kind is what a file of rows can be imported to.
type Kind struct {
	Name    string   // for people: user
	Columns []string // that a file may have
	Needs   []string // that it must have
	Seals   bool     // has private keys, which can be sealed

	table string
	// group is the column whose rows are replaced together: all targets of an
	// alias.
	group string
	// unique are the columns that no two lines may have the same; none for
	// certificates, of which a name can have several.
	unique []string
	// taken are the columns by which a row is there already.
	taken []string
	// folded are the columns that compare without regard to case.
	folded []string
	// update: a row that is there is changed in what the file has columns for,
	// not replaced.
	update bool
	// after is a statement on the lines that were added, in tabard_import.
	after string
	// plan reads the heading.
	plan func(h heading) (plan, error)
}

// plan says what becomes of a line.
type plan struct {
	stored []string // columns of the table
	slow   bool     // a line costs a password hash
	row    func(f fields) ([]any, error)
}

// heading is where a file has its columns.
type heading map[string]int

func (h heading) has(column string) bool { _, ok := h[column]; return ok }

// fields is one line of a file.
type fields struct {
	at    heading
	texts []string
	dir   string // that names of files are relative to
	seal  *Sealer
	urls  config.Dialect
}

// get returns a field without the blanks around it; "" where there is none.
func (f fields) get(column string) string { return strings.TrimSpace(f.raw(column)) }

func (f fields) raw(column string) string {
	if i, ok := f.at[column]; ok {
		return f.texts[i]
	}
	return ""
}

// The kinds of rows that can be imported.
func Users() Kind {
	return Kind{
		Name: "user", Columns: []string{"name", "password", "hash", "uid", "gid", "home", "enabled"}, Needs: []string{"name"},
		table: "users", group: "name", unique: []string{"name"}, taken: []string{"name"}, folded: []string{"name"}, update: true,
		after: `INSERT INTO senders ("user", address) SELECT name, name FROM tabard_import WHERE name LIKE '%@%' ON CONFLICT DO NOTHING`,
		plan:  planUsers,
	}
}

// Domains are domains that mail is taken for.
func Domains() Kind {
	return Kind{
		Name: "domain", Columns: []string{"name"}, Needs: []string{"name"},
		table: "domains", group: "name", unique: []string{"name"}, taken: []string{"name"}, folded: []string{"name"}, update: true,
		plan: func(heading) (plan, error) {
			return plan{stored: []string{"name"}, row: func(f fields) ([]any, error) {
				name, err := domainName(f.get("name"))
				return []any{name}, err
			}}, nil
		},
	}
}

// Aliases are targets of addresses, one on a line.
func Aliases() Kind {
	return Kind{
		Name: "alias", Columns: []string{"address", "target"}, Needs: []string{"address", "target"},
		table: "aliases", group: "address", unique: []string{"address", "target"}, taken: []string{"address", "target"}, folded: []string{"address"},
		plan: func(heading) (plan, error) {
			return plan{stored: []string{"address", "target"}, row: func(f fields) ([]any, error) {
				a, err := AliasRow{f.get("address"), f.get("target")}.normal()
				return []any{a.Address, a.Target}, err
			}}, nil
		},
	}
}

// Senders are addresses that users may send as, one on a line.
func Senders() Kind {
	return Kind{
		Name: "sender", Columns: []string{"user", "address"}, Needs: []string{"user", "address"},
		table: "senders", group: "user", unique: []string{"user", "address"}, taken: []string{"user", "address"}, folded: []string{"user", "address"},
		plan: func(heading) (plan, error) {
			return plan{stored: []string{"user", "address"}, row: func(f fields) ([]any, error) {
				s, err := SenderRow{f.get("user"), f.get("address")}.normal()
				return []any{s.User, s.Address}, err
			}}, nil
		},
	}
}

// Identities are client certificates that log in.
func Identities() Kind {
	return Kind{
		Name: "identity", Columns: []string{"identity", "user"}, Needs: []string{"identity", "user"},
		table: "client_identities", group: "identity", unique: []string{"identity"}, taken: []string{"identity"}, folded: []string{"identity"}, update: true,
		plan: func(heading) (plan, error) {
			return plan{stored: []string{"identity", "user"}, row: func(f fields) ([]any, error) {
				r, err := IdentityRow{f.get("identity"), f.get("user")}.normal()
				return []any{r.Identity, r.User}, err
			}}, nil
		},
	}
}

// Policies are TLS policies of destinations.
func Policies() Kind {
	return Kind{
		Name: "tls-policy", Columns: []string{"domain", "policy"}, Needs: []string{"domain", "policy"},
		table: "tls_policies", group: "domain", unique: []string{"domain"}, taken: []string{"domain"}, folded: []string{"domain"}, update: true,
		plan: func(heading) (plan, error) {
			return plan{stored: []string{"domain", "policy"}, row: func(f fields) ([]any, error) {
				r, err := PolicyRow{f.get("domain"), f.get("policy")}.normal()
				return []any{r.Domain, r.Policy}, err
			}}, nil
		},
	}
}

// Relays are relay routes, one on a line.
func Relays() Kind {
	return Kind{
		Name: "relay", Columns: []string{"match", "url", "priority", "weight"}, Needs: []string{"match", "url"},
		table: "relays", group: "match", unique: []string{"match", "url"}, taken: []string{"match", "url"}, folded: []string{"match"},
		plan: func(heading) (plan, error) {
			return plan{stored: []string{"match", "url", "priority", "weight"}, row: relayFields}, nil
		},
	}
}

// RelayLogins are what labels of relay URLs authenticate with.
func RelayLogins() Kind {
	return Kind{
		Name: "relay login", Columns: []string{"label", "username", "password"}, Needs: []string{"label", "username", "password"},
		table: "relay_credentials", group: "label", unique: []string{"label"}, taken: []string{"label"}, folded: []string{"label"}, update: true,
		plan: func(heading) (plan, error) {
			return plan{stored: []string{"label", "username", "password"}, row: func(f fields) ([]any, error) {
				label, err := relayLogin(f.get("label"), f.get("username"), f.raw("password"))
				return []any{label, f.get("username"), f.raw("password")}, err
			}}, nil
		},
	}
}

// Certs are certificates with their keys: as PEM in the line, or in files that
// it names, relative to the directory of the imported file.
func Certs() Kind {
	return Kind{
		Name: "certificate", Columns: []string{"name", "chain", "key", "chain_file", "key_file"}, Needs: []string{"name"}, Seals: true,
		table: "certificates", group: "name", taken: []string{"name"}, folded: []string{"name"},
		plan: func(h heading) (plan, error) {
			if !h.has("chain") && !h.has("chain_file") {
				return plan{}, errors.New("the heading must have chain or chain_file")
			}
			return plan{stored: []string{"name", "chain", "key"}, row: certFields}, nil
		},
	}
}

// planUsers stores what the file has columns for; the rest has the defaults of
// the table.
func planUsers(h heading) (plan, error) {
	p := plan{stored: []string{"name"}, slow: h.has("password")}
	if h.has("uid") != h.has("gid") {
		return p, errors.New("uid and gid must be given together")
	}
	type column struct {
		name  string
		given bool
		value func(fields) (any, error)
	}
	columns := []column{
		{"password", h.has("password") || h.has("hash"), userHash},
		{"uid", h.has("uid"), func(f fields) (any, error) { return userID(f, "uid", "gid") }},
		{"gid", h.has("gid"), func(f fields) (any, error) { return userID(f, "gid", "uid") }},
		{"home", h.has("home"), func(f fields) (any, error) { return orNull(f.get("home")), checkHome(f.get("home")) }},
		{"enabled", h.has("enabled"), func(f fields) (any, error) { return truth(f.get("enabled")) }},
	}
	columns = slices.DeleteFunc(columns, func(c column) bool { return !c.given })
	for _, c := range columns {
		p.stored = append(p.stored, c.name)
	}
	p.row = func(f fields) ([]any, error) {
		name, err := key("user", f.get("name"))
		if err != nil {
			return nil, err
		}
		row := []any{name}
		for _, c := range columns {
			v, err := c.value(f)
			if err != nil {
				return nil, fmt.Errorf("user %s: %w", name, err)
			}
			row = append(row, v)
		}
		return row, nil
	}
	return p, nil
}

// userHash returns the hash, or makes it of the password.
func userHash(f fields) (any, error) {
	secret, hash := f.raw("password"), f.get("hash")
	switch {
	case secret != "" && hash != "":
		return nil, errors.New("both a password and a hash")
	case secret != "":
		hash, err := password.Hash(secret)
		return hash, err
	}
	return orNull(hash), checkHash(hash)
}

func userID(f fields, column, other string) (any, error) {
	text := f.get(column)
	if text == "" {
		if f.get(other) != "" {
			return nil, fmt.Errorf("%s without %s", other, column)
		}
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 1<<32-1 {
		return nil, fmt.Errorf("%s %q: not a number from 0 to 4294967294", column, text)
	}
	return int64(n), nil
}

// truth reads yes and no; an empty field is yes, as the table's default.
func truth(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "", "1", "yes", "true", "t", "y", "on":
		return true, nil
	case "0", "no", "false", "f", "n", "off":
		return false, nil
	}
	return false, fmt.Errorf("enabled %q: neither yes nor no", text)
}

func relayFields(f fields) ([]any, error) {
	r := RelayRow{Match: f.get("match"), URL: f.get("url"), Weight: 1}
	for column, n := range map[string]*int64{"priority": &r.Priority, "weight": &r.Weight} {
		text := f.get(column)
		if text == "" {
			continue
		}
		v, err := strconv.ParseInt(text, 10, 32)
		if err != nil || column == "weight" && v < 0 {
			return nil, fmt.Errorf("%s %q: not a number that fits", column, text)
		}
		*n = v
	}
	if _, err := f.urls.ParseRelayURL(r.URL); err != nil {
		return nil, fmt.Errorf("relay %s: %w", r.Match, err)
	}
	r, err := r.normal()
	return []any{r.Match, r.URL, r.Priority, r.Weight}, err
}

func certFields(f fields) ([]any, error) {
	name, err := certName(f.get("name"))
	if err != nil {
		return nil, err
	}
	var p Pair
	for _, part := range []struct {
		text   *string
		column string
	}{{&p.Chain, "chain"}, {&p.Key, "key"}} {
		*part.text = f.raw(part.column)
		file := f.get(part.column + "_file")
		if file == "" {
			continue
		}
		if *part.text != "" {
			return nil, fmt.Errorf("certificate %s: both %s and %s_file", name, part.column, part.column)
		}
		if *part.text, err = f.file(file); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", name, err)
		}
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	if f.seal != nil {
		if p, err = f.seal.Seal(p); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", name, err)
		}
	}
	return []any{name, p.Chain, orNull(p.Key)}, nil
}

func (f fields) file(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(f.dir, path)
	}
	return table.ReadPEMFile(path)
}
