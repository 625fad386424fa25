package agent

import (
	"bytes"
	"testing"

	"github.com/spf13/afero"
)

// The engine's boots grow with each start. Where that cannot be recorded it has
// another identity: under the old one, messages of the start before would be
// valid once more.
func TestIdentity(t *testing.T) {
	state := afero.NewMemMapFs()
	start := func(fs afero.Fs) ([]byte, uint32, []string) {
		a := &Agent{cfg: Config{State: fs}}
		id, findings, err := a.openIdentity(nil)
		if err != nil {
			t.Fatal(err)
		}
		return id.EngineID, id.Boots, findings
	}
	first, boots, findings := start(state)
	if len(findings) > 0 || len(first) < 5 || boots != 1 {
		t.Fatalf("%x, %d boots, %v", first, boots, findings)
	}
	seen := [][]byte{first}
	for range 2 {
		id, _, findings := start(afero.NewReadOnlyFs(state))
		if len(findings) == 0 {
			t.Error("no word about a record that cannot be written")
		}
		for _, other := range seen {
			if bytes.Equal(id, other) {
				t.Errorf("%x again, though its start was not recorded", id)
			}
		}
		seen = append(seen, id)
	}
	if id, boots, findings := start(state); len(findings) > 0 || !bytes.Equal(id, first) || boots != 2 {
		t.Errorf("later %x, %d boots, %v", id, boots, findings)
	}
}
