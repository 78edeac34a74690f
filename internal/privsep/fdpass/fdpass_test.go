package fdpass

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tabard/internal/rpc"
)

const maxTest = 1 << 20

type message struct {
	N    int
	Data []byte
}

// conns returns two connected ends.
func conns(t testing.TB) (a, b *Conn) {
	t.Helper()
	fa, fb, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = FromFile(fa, maxTest, maxTest); err != nil {
		t.Fatal(err)
	}
	if b, err = FromFile(fb, maxTest, maxTest); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
		a.Discard()
		b.Discard()
	})
	return a, b
}

func textFile(t testing.TB, text string) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestMessagesAndFiles(t *testing.T) {
	a, b := conns(t)
	one, two := textFile(t, "one"), textFile(t, "two")
	large := bytes.Repeat([]byte{'x'}, maxTest-100)
	go func() {
		for i, f := range []*os.File{nil, one, two, nil, one} {
			data := []byte{byte(i)}
			if i == 3 {
				data = large // does not fit into the socket's buffer at once
			}
			if err := a.Send(message{i, data}, f); err != nil {
				t.Error(err)
			}
		}
		a.Close()
	}()
	for i, want := range []string{"", "one", "two", "", ""} {
		var m message
		f, err := b.RecvFile(&m)
		if err != nil || m.N != i || (f != nil) != (i == 1 || i == 2 || i == 4) {
			t.Fatalf("message %d: %d, file %v, %v", i, m.N, f, err)
		}
		if i == 3 && !bytes.Equal(m.Data, large) {
			t.Error("the large message changed")
		}
		if f == nil {
			continue
		}
		if text, err := io.ReadAll(f); err != nil || string(text) != want {
			t.Errorf("file %d reads %q, %v", i, text, err) // the second "one" shares its offset: empty
		}
		flags, err := unix.FcntlInt(f.Fd(), syscall.F_GETFD, 0)
		if err != nil || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("file %d is not closed on exec", i)
		}
		f.Close()
	}
	if _, err := b.RecvFile(&message{}); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestRecvDropsFiles(t *testing.T) {
	a, b := conns(t)
	for range 3 {
		if err := a.Send(message{N: 1}, textFile(t, "x")); err != nil {
			t.Fatal(err)
		}
	}
	before := openFiles(t)
	for range 3 {
		var m message
		if err := b.Recv(&m); err != nil || m.N != 1 {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d open files became %d", before, after)
	}
}

// openFiles counts the descriptors of this process without opening any that
// stays.
func openFiles(t *testing.T) int {
	t.Helper()
	n := 0
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), syscall.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}

func TestConcurrentSends(t *testing.T) {
	a, b := conns(t)
	f := textFile(t, "x")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				var with *os.File
				if i%2 == 1 {
					with = f
				}
				if err := a.Send(message{i, make([]byte, 10_000)}, with); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 8 * 50 {
		var m message
		got, err := b.RecvFile(&m)
		if err != nil {
			t.Fatal(err)
		}
		if (got != nil) != (m.N%2 == 1) {
			t.Errorf("message of sender %d: file %v", m.N, got)
		}
		if got != nil {
			got.Close()
		}
	}
	wg.Wait()
}

func TestTooLarge(t *testing.T) {
	a, _ := conns(t)
	if err := a.Send(message{Data: make([]byte, maxTest)}, nil); !errors.Is(err, rpc.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// raw returns a Conn and the bare other end of its socket.
func raw(t testing.TB, max int) (*Conn, *net.UnixConn) {
	t.Helper()
	fa, fb, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := FromFile(fa, max, max)
	if err != nil {
		t.Fatal(err)
	}
	defer fb.Close()
	peer, err := net.FileConn(fb)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		c.Discard()
		peer.Close()
	})
	return c, peer.(*net.UnixConn)
}

var hostile = map[string][]byte{
	"nothing":          {0, 0, 0, 0, 0},
	"only the flag":    {0, 0, 0, 1, 0},
	"huge":             {0xff, 0xff, 0xff, 0xff, 0},
	"bad flag":         {0, 0, 0, 2, 2, 0xa0},
	"file missing":     {0, 0, 0, 2, 1, 0xa0},
	"not cbor":         {0, 0, 0, 2, 0, 0xff},
	"cut short":        {0, 0, 0, 9, 0, 0xa0},
	"head cut short":   {0, 0},
	"text":             []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	"trailing garbage": {0, 0, 0, 3, 0, 0xa0, 0xa0},
}

func TestHostileBytes(t *testing.T) {
	for name, data := range hostile {
		c, peer := raw(t, 100)
		if _, err := peer.Write(data); err != nil {
			t.Fatal(err)
		}
		peer.Close()
		if _, err := c.RecvFile(&message{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTooManyFiles(t *testing.T) {
	for _, n := range []int{maxWaiting + 1, 50} {
		c, peer := raw(t, 100)
		f := textFile(t, "x")
		fds := make([]int, n)
		for i := range fds {
			fds[i] = int(f.Fd())
		}
		if _, _, err := peer.WriteMsgUnix([]byte{0, 0, 0, 2, 1, 0xa0}, syscall.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.RecvFile(&message{}); !errors.Is(err, ErrFormat) {
			t.Errorf("%d files: %v", n, err)
		}
	}
}

// FuzzRecv feeds both ways of receiving with bytes.
func FuzzRecv(f *testing.F) {
	for _, data := range hostile {
		f.Add(data)
	}
	f.Add([]byte{0, 0, 0, 6, 0, 0xa1, 0x61, 'N', 0x18, 0x2a})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		for _, recv := range []func(*Conn) error{
			func(c *Conn) error { _, err := c.RecvFile(&message{}); return err },
			func(c *Conn) error { return c.Recv(&message{}) },
		} {
			c, peer := raw(t, 1000)
			if _, err := peer.Write(data); err != nil {
				t.Fatal(err)
			}
			peer.Close()
			for err := error(nil); err == nil; {
				err = recv(c)
			}
			c.Close()
		}
	})
}
