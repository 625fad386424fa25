package board

import (
	"bytes"
	"strings"
	"unicode"
)

// MaxOutput is how much of a program's output is kept, in bytes.
const MaxOutput = 64 << 10

// maxSaid is the length in bytes to which the last line is cut in errors: with
// the rest of the sentence it fits into iadUpgOpFailText.
const maxSaid = 80

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	p = p[max(0, n-MaxOutput):]
	if excess := len(t.buf) + len(p) - MaxOutput; excess > 0 {
		t.buf = t.buf[:copy(t.buf, t.buf[excess:])]
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

func (t *tail) bytes() []byte { return t.buf }

// lastLine returns the last line that is not blank, printable and cut to size.
func (t *tail) lastLine() string {
	lines := bytes.Split(bytes.TrimSpace(t.buf), []byte("\n"))
	line := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(lines[len(lines)-1]), "?"))
	line = strings.TrimSpace(line)
	if len(line) <= maxSaid {
		return line
	}
	return strings.ToValidUTF8(line[:maxSaid-3], "") + "..."
}
