package command

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"
)

// A program that reads serve --json gets JSON from the first line on.
func TestServeJSON(t *testing.T) {
	l := &lab{t: t, dir: t.TempDir()}
	cmd := l.command("serve", "--listen", "127.0.0.1", "--tftp", "0", "--ftp", "0", "--notifications", "0", "--device", "A", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	for last := ""; last != "listener" && s.Scan(); {
		var line struct{ Kind string }
		if err := json.Unmarshal(s.Bytes(), &line); err != nil || line.Kind == "" {
			t.Errorf("%q is no JSON with a kind: %v", s.Text(), err)
			break
		}
		last = line.Kind
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait() // ended by the signal
}
