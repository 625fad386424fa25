package agent_test

import (
	"strings"
	"testing"
	"unicode"

	"example.com/iad/mib"
)

// Words of strangers reach the texts for humans without what would command a
// terminal.
func TestWordsOfStrangers(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.hold()
		b.must(command(backupConfig))
		b.must(command(abort), text(mib.ReqOwner, "x\x1b[2J\u009b31m\r\n\x7fy"))
		if said := b.text(mib.OpFailText); strings.ContainsFunc(said, unicode.IsControl) || !strings.HasPrefix(said, "aborted by x") {
			t.Errorf("%q", said)
		}
		b.release()
	})
}
