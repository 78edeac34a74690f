package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/emersion/go-smtp"

	"tabard/internal/config"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/table"
)

// The hidden arguments that make bench a discarding SMTP server, the floor that
// the library sets: with its key, with its key in another process, and that other
// process. A directory with the certificate follows, and an address to listen on.
const (
	nullServer  = "null-server"
	nullRemote  = "null-remote-server"
	nullSession = "null-session" // as nullServer, with session tickets
	nullLookup  = "null-lookup"
)

type discarding struct{}

func (discarding) Reset()                               {}
func (discarding) Logout() error                        { return nil }
func (discarding) Mail(string, *smtp.MailOptions) error { return nil }
func (discarding) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (discarding) Data(r io.Reader) error               { _, err := io.Copy(io.Discard, r); return err }

// hidden carries out a hidden argument.
func hidden(args []string) (code int, ok bool) {
	if len(args) != 3 {
		return 0, false
	}
	var err error
	switch args[0] {
	case nullServer, nullSession, nullRemote:
		err = runNull(args[0], args[1], args[2])
	case nullLookup:
		err = runLookup(args[1])
	case filesServer:
		err = runFiles(args[1], args[2])
	default:
		return 0, false
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// runNull serves at addr with the certificate in dir.
func runNull(kind, dir, addr string) error {
	cfg := &tls.Config{SessionTicketsDisabled: kind != nullSession}
	if kind == nullRemote {
		in, err := startLookup(dir)
		if err != nil {
			return err
		}
		cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			reply, err := in.Certificate(h.Context(), lookup.CertificateRequest{ServerName: h.ServerName, Schemes: lookup.OfferedSchemes(h)})
			if err != nil {
				return nil, err
			}
			return lookup.TLSCertificate(h.Context(), in, reply)
		}
	} else {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem"))
		if err != nil {
			return err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return discarding{}, nil }))
	s.Domain, s.TLSConfig = "null.example", cfg
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	_, _ = fmt.Println("ready")
	return s.Serve(l)
}

// startLookup starts a process with the lookup service of the certificate in dir.
func startLookup(dir string) (lookup.Inbound, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	cmd := exec.Command(exe, nullLookup, dir, "-")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	if err := cmd.Start(); err != nil { // it ends with the connection
		return nil, err
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	return lookup.NewInbound(rpc.NewClient(conn)), nil
}

// runLookup serves the certificate in dir to the connection that is descriptor 3.
func runLookup(dir string) error {
	text := fmt.Sprintf("pki bench.example cert %q\npki bench.example key %q\nlisten on 127.0.0.1 tls pki bench.example\nmatch from any for any reject\n",
		filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem"))
	cfg, err := config.Parse("bench", []byte(text), config.Options{})
	if err != nil {
		return err
	}
	ctx := context.Background()
	svc, err := lookup.New(ctx, lookup.Options{Config: cfg, Hostname: "bench.example", Open: func(context.Context, config.Table) (table.Backend, error) {
		return nil, errors.New("no tables here")
	}})
	if err != nil {
		return err
	}
	srv := rpc.NewServer()
	if err := lookup.RegisterInbound(srv, svc); err != nil {
		return err
	}
	file := os.NewFile(3, "edge")
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	_ = file.Close() // conn has its own
	return srv.Serve(ctx, conn)
}
