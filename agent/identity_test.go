package agent

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/spf13/afero"
)

// The engine's boots grow with each start. Where that cannot be recorded it has
// another identity: under the old one, messages of the start before would be
// valid once more.
func TestIdentity(t *testing.T) {
	state := afero.NewMemMapFs()
	start := func(fs afero.Fs) ([]byte, uint32, error) {
		a := &Agent{cfg: Config{State: fs}, log: slog.New(slog.DiscardHandler)}
		return a.identity(nil)
	}
	first, boots, err := start(state)
	if err != nil || len(first) < 5 || boots != 1 {
		t.Fatalf("%x, %d boots, %v", first, boots, err)
	}
	seen := [][]byte{first}
	for range 2 {
		id, _, err := start(afero.NewReadOnlyFs(state))
		if err == nil {
			t.Error("no word about a record that cannot be written")
		}
		for _, other := range seen {
			if bytes.Equal(id, other) {
				t.Errorf("%x again, though its start was not recorded", id)
			}
		}
		seen = append(seen, id)
	}
	if id, boots, err := start(state); err != nil || !bytes.Equal(id, first) || boots != 2 {
		t.Errorf("later %x, %d boots, %v", id, boots, err)
	}
}
