package engine

import "testing"

// TestServersSync: by default JetStream acknowledges what it syncs up to two minutes later,
// and no test that kills a process would notice.
func TestServersSync(t *testing.T) {
	for name, c := range map[string]Config{
		"one node": {Data: "d", Name: "a"},
		"cluster":  {Data: "d", Name: "a", Cluster: "127.0.0.1:1", Join: []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, Secret: "0123456789abcdef"},
	} {
		o, err := c.options()
		if err != nil || !o.SyncAlways {
			t.Errorf("%s: SyncAlways is not set, %v", name, err)
		}
	}
}
