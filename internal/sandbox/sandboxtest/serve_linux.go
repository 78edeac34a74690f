package sandboxtest

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage bounds a list of attempts, in bytes.
const maxMessage = 32 << 10

func probeAddr(pid int) *net.UnixAddr {
	return &net.UnixAddr{Net: "unixgram", Name: fmt.Sprintf("@tabard-probe-%d", pid)}
}

// Serve lets tests ask this process to try things. It has to be called before
// the process gives up its rights. The tests' end of a connection is handed over
// with the question: the process need be able to do no more than receive.
func Serve() error {
	conn, err := net.ListenUnixgram("unixgram", probeAddr(os.Getpid()))
	if err != nil {
		return err
	}
	go func() {
		buf, oob := make([]byte, maxMessage), make([]byte, 64)
		for {
			n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			answer(buf[:n], oob[:oobn])
		}
	}()
	return nil
}

// answer makes the attempts, and writes how each ended into the descriptor that
// came with them.
func answer(question, oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return
	}
	f := os.NewFile(uintptr(fds[0]), "answer")
	defer func() { _ = f.Close() }()
	var attempts []Attempt
	if err := json.Unmarshal(question, &attempts); err != nil {
		return
	}
	var results []string
	for _, a := range attempts {
		results = append(results, Try(a))
	}
	_ = json.NewEncoder(f).Encode(results)
}

// Ask has the process pid, in which Serve runs, make attempts. The results are
// those of Try.
func Ask(pid int, attempts ...Attempt) ([]string, error) {
	question, err := json.Marshal(attempts)
	if err != nil {
		return nil, err
	}
	to, err := socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(to)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	err = unix.Sendmsg(to, question, unix.UnixRights(int(w.Fd())), &unix.SockaddrUnix{Name: probeAddr(pid).Name}, 0)
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	var results []string
	if err := json.NewDecoder(r).Decode(&results); err != nil {
		return nil, fmt.Errorf("process %d did not answer: %w", pid, err)
	}
	if len(results) != len(attempts) {
		return nil, fmt.Errorf("process %d made %d of %d attempts", pid, len(results), len(attempts))
	}
	return results, nil
}
