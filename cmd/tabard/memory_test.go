package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"path/filepath"
)

// keyBytes returns the private key of localhost as it stands in memory.
func (s *server) keyBytes() map[string][]byte {
	s.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(s.dir, "mail.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var text string
	if err := db.QueryRowContext(context.Background(), `SELECT key FROM certificates WHERE name = 'localhost'`).Scan(&text); err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(text))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	secret, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		s.t.Fatal(err)
	}
	return map[string][]byte{"the secret number": secret}
}

// exec changes a row of the server's tables.
func (s *server) exec(stmt string, args ...any) {
	s.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, "mail.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(context.Background(), stmt, args...); err != nil {
		s.t.Fatalf("%s: %v", stmt, err)
	}
}
