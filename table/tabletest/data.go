// Package tabletest holds one suite that every backend must pass: the same
// logical data, loaded by each backend in its own way, gives the same answers.
package tabletest

import (
	"encoding/base64"
	"strings"

	"tabard/table"
)

// Data is what one table holds for one service: a mapping, or a list.
type Data struct {
	Service table.Service
	Mapping bool
	Records []Record
}

// Record is one entry. A list has keys only. Values are one text per row for
// alias, mailaddrmap and relayhost; user and hash for credentials; uid, gid and
// home for userinfo; chain and key for each certificate of cert; selector and key
// for dkim; one text for the others.
type Record struct {
	Key    string
	Values []string
}

// Text returns the values as the one text that a key has in a source without
// columns: comma lists, "user:hash", "uid:gid:home", base64 of PEM.
func (r Record) Text(s table.Service) string {
	switch s {
	case table.Alias, table.MailAddrMap, table.RelayHost:
		return strings.Join(r.Values, ", ")
	case table.Credentials, table.UserInfo, table.DKIM:
		return strings.Join(r.Values, ":")
	case table.Cert, table.CA:
		return base64.StdEncoding.EncodeToString([]byte(strings.Join(r.Values, "\n")))
	}
	return strings.Join(r.Values, " ")
}
