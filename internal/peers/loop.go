package peers

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Loop makes a block device of size bytes out of a file, with something on it, and removes it after the test. sector is the
// size of its sectors, 512 to 4096. It needs root; where the system has no loop devices, the test is skipped.
func Loop(t testing.TB, size int64, sector string) (device, file string) {
	t.Helper()
	NeedRoot(t)
	file = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, bytes.Repeat([]byte{0xA5}, int(size)), 0o600); err != nil {
		t.Fatal(err)
	}
	losetup := Find(t, "losetup")
	out, err := exec.Command(losetup, "--find", "--show", "--sector-size", sector, file).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v: %s; load the module loop", err, out)
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command(losetup, "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return device, file
}
