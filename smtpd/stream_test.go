package smtpd

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"tabard/internal/rpc"
	"tabard/queue"
)

// behindSocket returns q as smtpd has it: behind a connection to another process.
func behindSocket(t testing.TB, q queue.Client) queue.Client {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "socketpair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	served := make(chan struct{})
	go func() {
		_ = queue.ServeClient(context.Background(), ends[0], q)
		close(served)
	}()
	c := rpc.NewClient(ends[1])
	t.Cleanup(func() {
		_ = c.Close()
		<-served
	})
	return queue.NewRemote(c)
}

// BenchmarkStream takes messages that are larger than one call carries, from 50
// connections, and hands them to a queue that forgets them, in another process but for
// the memory.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{100 << 10, 1 << 20, 8 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			srv, err := New(Config{Listeners: []Listener{{Name: "bench"}}, Hostname: "mx.example.org", MaxMails: 1 << 30},
				nullLookup{&fakeLookup{}}, behindSocket(b, nullQueue{}), slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			addr, stop := serveTCP(b, srv)
			b.Cleanup(stop)
			body := benchBody(size)
			b.SetBytes(int64(size))
			b.SetParallelism(50 / runtime.GOMAXPROCS(0))
			b.ReportAllocs()
			b.ResetTimer()
			defer cpu(b)()
			b.RunParallel(func(pb *testing.PB) {
				c := benchDial(b, addr)
				for pb.Next() {
					c.send(body)
				}
				c.quit()
			})
		})
	}
}

// A large message is collected in memory that the next one uses again.
func TestLargeMessagesLeaveNoGarbage(t *testing.T) {
	r := start(t)
	r.srv.queue = nullQueue{}
	const pieces = 16
	body := benchBody(pieces * queue.InlineBody)
	c := r.hello()
	send := func() {
		c.envelope()
		c.do("DATA", "354")
		if _, err := c.conn.Write(body); err != nil {
			t.Fatal(err)
		}
		c.expect("250 2.0.0")
	}
	least := uint64(math.MaxUint64)
	for range 10 { // a collection or the race detector may have pools forget what they have
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		send()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	if least > queue.InlineBody {
		t.Errorf("%d bytes of memory for each message", least)
	}
}
