package smtpd

import (
	"fmt"
	"strings"
	"testing"
)

// TestSmuggling sends, after a message whose end some server might believe in, a
// second transaction. It must never be run: not when the end comes in one packet
// with it, not when it comes byte by byte.
func TestSmuggling(t *testing.T) {
	const second = "MAIL FROM:<evil@b.example>\r\nRCPT TO:<victim@c.example>\r\nDATA\r\nevil\r\n.\r\n"
	ends := []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\r\n.\r\n", "\n\r\n.\r\n", "\r\n.\r\r\n",
		"\r\n\r.\r\n", "\r\n\n.\r\n", "\r\n.\n\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\x00\n", "\x00\r\n.\r\n", "\n.\r", "\r\x00\n.\r\n",
	}
	for _, end := range ends {
		t.Run(fmt.Sprintf("%q", end), func(t *testing.T) {
			r := start(t)
			text := "Subject: x\r\n\r\nhello" + end + second
			for _, cut := range []int{0, len(text) - len(second) - 1, len(text) - len(second), len(text) - len(second) + 1} {
				c := r.hello()
				c.envelope()
				c.do("DATA", "354")
				c.write(text[:cut])
				c.write(text[cut:])
				c.expect("554 5.6.0 ")
				c.gone()
			}
			if n := len(r.queue.all()); n != 0 {
				t.Errorf("%d messages stored: %q", n, r.queue.all()[0].body)
			}
		})
	}
}

// TestNormalize: with `smtp bare-newline normalize` sloppy senders are taken,
// but the end of data is what it always was.
func TestNormalize(t *testing.T) {
	r := start(t, onListener(func(l *Listener) { l.NormalizeBareNewline = true }))
	c := r.hello()
	c.envelope()
	c.do("DATA", "354")
	c.do("Subject: x\n\nMAIL FROM:<evil@b.example>\n.\nmore\rand\r\n..\r\n.", "250")
	want := "Subject: x\r\n\r\nMAIL FROM:<evil@b.example>\r\n.\r\nmore\r\nand\r\n.\r\n"
	if got := r.only().content(); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	c.envelope()
	c.do("DATA", "354")
	c.do("a\x00b\r\n.", "554 5.6.0 NUL")
	c.gone()
}

func TestBDAT(t *testing.T) {
	t.Run("whole", func(t *testing.T) {
		r := start(t)
		c := r.hello()
		text := "Subject: x\r\n\r\n.\r\n..stays\r\n.\r\nno end"
		for i := 0; i <= len(text); i++ {
			c.envelope()
			c.write(fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", i, text[:i], len(text)-i, text[i:]))
			c.expect("250")
			c.expect("250 2.0.0 ")
		}
		for _, m := range r.queue.all() {
			if got, want := m.content(), text+"\r\n"; got != want {
				t.Fatalf("stored %q, want %q", got, want)
			}
		}
		if n := len(r.queue.all()); n != len(text)+1 {
			t.Errorf("%d messages", n)
		}
		c.do("DATA", "503")
		c.envelope()
		c.do("DATA", "354")
		c.do("x\r\n.", "250")
	})
	t.Run("empty chunks", func(t *testing.T) {
		r := start(t)
		c := r.hello()
		c.envelope()
		c.do("BDAT 0", "250 2.0.0 0 bytes received")
		c.write("BDAT 6\r\nA: b\r\n")
		c.expect("250")
		c.do("BDAT 0 LAST", "250 2.0.0")
		if got := r.only().content(); got != "A: b\r\n" {
			t.Errorf("stored %q", got)
		}
	})
	t.Run("in between", func(t *testing.T) {
		c := start(t).hello()
		c.envelope()
		c.write("BDAT 3\r\na\r\n")
		c.expect("250")
		c.do("DATA", "503")
		c.do("MAIL FROM:<a@b.c>", "503")
		c.do("RCPT TO:<a@b.c>", "503")
		c.do("NOOP", "250")
		c.do("RSET", "250 2.0.0 Reset state")
		c.write("BDAT 3 LAST\r\na\r\n")
		c.expect("503 5.5.1")
		c.envelope()
	})
	t.Run("malformed", func(t *testing.T) {
		for _, bad := range []string{"", "x", "-1", "1 FIRST", "1 LAST x", "99999999999999999999", "0x10", "1,2"} {
			c := start(t).hello()
			c.envelope()
			c.do("BDAT "+bad, "501 5.5.4")
			c.gone()
		}
	})
	t.Run("bare", func(t *testing.T) {
		r := start(t)
		for _, bad := range []string{"a\nb", "a\rb", "a\r", "a\x00"} {
			c := r.hello()
			c.envelope()
			c.write(fmt.Sprintf("BDAT %d LAST\r\n%sQUIT\r\n", len(bad), bad))
			c.expect("554 5.6.0")
			c.gone()
		}
		if n := len(r.queue.all()); n != 0 {
			t.Errorf("%d messages", n)
		}
	})
	t.Run("too large", func(t *testing.T) {
		r := start(t, onConfig(func(c *Config) { c.MaxMessageSize = 100 }))
		c := r.hello()
		c.envelope()
		c.write("BDAT 101\r\n" + strings.Repeat("x", 101) + "BDAT 1 LAST\r\nx")
		c.expect("552 5.3.4")
		c.expect("503")
		c.envelope()
		c.do("BDAT 3000000", "552 5.3.4")
		c.gone()
	})
}
