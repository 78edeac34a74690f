package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func framed(payload ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// Each of these bytes from a client ends the connection, and nothing else.
var hostileRequests = map[string][]byte{
	"zero length":        {0, 0, 0, 0},
	"huge length":        {0xff, 0xff, 0xff, 0xff},
	"unknown kind":       framed(9, 1, 2, 3),
	"an answer":          appendAnswer(nil, 1, codeOK, []byte{0xf6}),
	"short call":         framed(kindCall, 0, 0),
	"method cut short":   framed(append(make([]byte, callHead-1), 200)...),
	"long cancel":        framed(append([]byte{kindCancel}, make([]byte, 9)...)...),
	"text":               []byte("EHLO mail.example.org\r\nMAIL FROM:<>\r\n"),
	"not cbor":           appendCall(nil, 1, 0, "T.Echo", []byte{0xff, 0xff}),
	"no body":            appendCall(nil, 1, 0, "T.Echo", nil),
	"trailing bytes":     appendCall(nil, 1, 0, "T.Echo", []byte{0x40, 0x40}),
	"wrong type":         appendCall(nil, 1, 0, "T.Echo", []byte{0xa0}),
	"indefinite length":  appendCall(nil, 1, 0, "T.Echo", []byte{0x5f, 0x41, 0x00, 0xff}),
	"tag":                appendCall(nil, 1, 0, "T.Echo", []byte{0xc1, 0x41, 0x00}),
	"claimed long array": appendCall(nil, 1, 0, "T.Echo", []byte{0x9b, 0, 0, 0, 1, 0, 0, 0, 0}),
	"deep nesting":       appendCall(nil, 1, 0, "T.Nothing", bytes.Repeat([]byte{0x81}, 100_000)),
	"same call twice": append(appendCall(nil, 7, 0, "T.Block", []byte{0xa0}),
		appendCall(nil, 7, 0, "T.Block", []byte{0xa0})...),
}

func TestHostileClient(t *testing.T) {
	for name, data := range hostileRequests {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			done := serve(t, newService(), a)
			if _, err := b.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err == nil {
				t.Error("Serve reports nothing")
			}
			if _, err := io.Copy(io.Discard, b); err != nil {
				t.Errorf("the connection was not closed: %v", err)
			}
		})
	}
}

func TestHarmlessOddities(t *testing.T) {
	a, b := pair(t)
	serve(t, newService(), a)
	data := appendCancel(nil, 99) // of a call that never was
	data = appendCall(data, 1, maxDeadline*2, "T.Nothing", []byte{0xa0})
	data = appendCall(data, 1<<63, 0, "T.Nothing", []byte{0xa1, 0x61, 'x', 0x01}) // an unknown field
	if _, err := b.Write(data); err != nil {
		t.Fatal(err)
	}
	codec := newClientCodec(b, 1000)
	for range 2 {
		if a, err := codec.read(); err != nil || a.code != codeOK {
			t.Errorf("answer %+v, %v", a, err)
		}
	}
}

func TestInFlightIsBounded(t *testing.T) {
	const limit, calls = 4, 50
	svc := newService()
	a, b := pair(t)
	serve(t, svc, a, MaxInFlight(limit))
	var data []byte
	for i := range calls {
		data = appendCall(data, uint64(i), 0, "T.Block", []byte{0xa0})
	}
	if _, err := b.Write(data); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the limit is used", func() bool { return svc.entered.Load() == limit })
	close(svc.gate)
	eventually(t, "every call is served", func() bool { return svc.entered.Load() == calls })
	if most := svc.most.Load(); most != limit {
		t.Errorf("%d requests were in flight, the limit is %d", most, limit)
	}
}

func TestBytesInFlightAreBounded(t *testing.T) {
	g := newGate(100, 10)
	if !g.try(6) || g.try(6) || !g.try(4) || g.try(1) {
		t.Error("the bytes are not counted")
	}
	g.leave(6)
	if !g.try(6) {
		t.Error("the bytes are not returned")
	}
	g.close()
	if g.wait(1) {
		t.Error("a closed gate lets in")
	}
}

// A server that reads nothing because it is full still notices that its peer
// has gone.
func TestPeerGoneWhileFull(t *testing.T) {
	svc := newService()
	a, b := pair(t)
	done := serve(t, svc, a, MaxInFlight(1))
	var data []byte
	for i := range 10 {
		data = appendCall(data, uint64(i), 0, "T.Block", []byte{0xa0})
	}
	if _, err := b.Write(data); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the handler runs", func() bool { return svc.entered.Load() == 1 })
	b.Close()
	if err := <-svc.ended; err != context.Canceled {
		t.Errorf("handler: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestHostileServer(t *testing.T) {
	for name, data := range map[string][]byte{
		"huge length": {0xff, 0xff, 0xff, 0xff},
		"text":        []byte("220 mail.example.org ESMTP\r\n"),
		"a call":      appendCall(nil, 0, 0, "T.X", nil),
		"short":       framed(kindAnswer, 0),
		"not cbor":    appendAnswer(nil, 0, codeOK, []byte{0xff}),
		"wrong type":  appendAnswer(nil, 0, codeOK, []byte{0x41, 0x00}),
	} {
		a, b := pair(t)
		c := NewClient(b)
		go func() {
			var one [1]byte
			if _, err := io.ReadFull(a, one[:]); err == nil {
				a.Write(data)
			}
		}()
		if _, err := Invoke[None, int](t.Context(), c, "T.X", None{}); err == nil {
			t.Errorf("%s: no error", name)
		}
		c.Close()
	}
}

func TestAnswersToNobody(t *testing.T) {
	a, b := pair(t)
	c := NewClient(b)
	defer c.Close()
	go func() {
		a.Read(make([]byte, 1)) // an answer before its question is nobody's as well
		data := appendAnswer(nil, 12345, codeOK, []byte{0xa0})
		data = appendAnswer(data, 12345, code(200), "?")
		data = appendAnswer(data, 0, code(200), strings.Repeat("x", 100_000))
		a.Write(data)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := Invoke[None, None](ctx, c, "T.X", None{})
	var remote *RemoteError
	if !errors.As(err, &remote) || len(remote.Text) != maxErrorText {
		t.Errorf("got %.100v", err)
	}
}

// A client does not wait longer than its caller wants for a server that is full.
func TestCallersWaitWithinTheirDeadline(t *testing.T) {
	a, b := pair(t)
	defer a.Close() // never reads
	c := NewClient(b, MaxInFlight(1))
	defer c.Close()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := Invoke[None, None](ctx, c, "T.X", None{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
}

// FuzzServer feeds a server bytes; it must end, without a panic.
func FuzzServer(f *testing.F) {
	for _, data := range hostileRequests {
		f.Add(data)
	}
	f.Add(appendCall(nil, 1, time.Second, "T.Echo", []byte{0x41, 0x00}))
	f.Add(appendCancel(appendCall(nil, 1, 0, "T.Block", []byte{0xa0}), 1))
	srv := NewServer(MaxFrame(4096), MaxInFlight(4))
	if err := srv.Register("T", newFuzzService()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := net.Pipe()
		go func() {
			b.Write(data)
			b.Close()
		}()
		go io.Copy(io.Discard, b)
		_ = srv.Serve(t.Context(), a) // any outcome but a panic or a hang
	})
}

// newFuzzService does not block a call forever.
func newFuzzService() *service {
	svc := newService()
	close(svc.gate)
	return svc
}

// FuzzClient feeds a client bytes as the answer to a call.
func FuzzClient(f *testing.F) {
	f.Add(appendAnswer(nil, 0, codeOK, []byte{0x41, 0x00}))
	f.Add(appendAnswer(nil, 0, codeBusy, "later"))
	f.Add(appendAnswer(appendAnswer(nil, 3, codeOK, []byte{}), 0, codeOther, ""))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := net.Pipe()
		go io.Copy(io.Discard, a)
		c := NewClient(b, MaxFrame(4096))
		go func() {
			a.Write(data)
			a.Close()
		}()
		_, _ = Invoke[None, map[string][]string](t.Context(), c, "T.X", None{})
		c.Close()
	})
}
