package command

import (
	"bufio"
	"os"
	"testing"
)

// TestClosedPipe: a reader of the output that ends, as head does, does not end the
// upgrade.
func TestClosedPipe(t *testing.T) {
	for _, mode := range []string{"text", "json"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t, nil)
			args := []string{"--image", l.image("2.0.0", 2)}
			if mode == "text" {
				args = append(args, "--json=false")
			}
			cmd := l.upgrade(args...)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Error(err)
			}
			if err := out.Close(); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("iadms: %v", err)
			}
			if v := l.outcome().Version; v != "2.0.0" {
				t.Errorf("the device runs %s", v)
			}
		})
	}
}
