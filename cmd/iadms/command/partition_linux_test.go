package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/internal/peers"
)

// TestPartitionUpgrade upgrades a device whose kernel is on raw partitions, with the real
// programs and real block devices; a device without partitions refuses the same software.
func TestPartitionUpgrade(t *testing.T) {
	var devices, files [2]string
	for i := range devices {
		devices[i], files[i] = peers.Loop(t, 512<<10, "512")
	}
	maker := newMaker(t)
	kernel := func(version string) []byte { return bytes.Repeat([]byte("kernel of "+version+"\n"), 20_000)[:300_001] }
	for _, version := range []string{"1.0.0", "2.0.0"} {
		if err := os.WriteFile(filepath.Join(maker.dir, "kernel"), kernel(version), 0o600); err != nil {
			t.Fatal(err)
		}
		build := maker.command("image", "build", "--version", version, "--hardware", "H", "--key", "maker.key", "-o", "raw-"+version+".iad", "--partition", "kernel", "app")
		build.Dir = maker.dir
		if out, status := maker.run(build); status != exitOK {
			t.Fatalf("exit status %d\n%s", status, out)
		}
	}
	software := filepath.Join(maker.dir, "raw-2.0.0.iad")
	if out, status := maker.plainly("image", "inspect", software); status != exitOK || !strings.Contains(out, "kernel") || !strings.Contains(out, "300001 bytes  partition") {
		t.Errorf("exit status %d\n%s", status, out)
	}

	b := newBoardOf(t, maker, "", "raw-1.0.0.iad", "--partition1", devices[0], "--partition2", devices[1])
	out, status := b.run(b.command("upgrade", b.address, "--image", software, "--yes", "--listen", "127.0.0.1", "--notifications", "none", "--poll", "100ms"))
	if status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	for i, version := range []string{"1.0.0", "2.0.0"} {
		// The medium, not the cache of the device.
		if got, err := os.ReadFile(files[i]); err != nil || !bytes.HasPrefix(got, kernel(version)) {
			t.Errorf("partition %d does not hold %s, %v", i+1, version, err)
		}
	}
	if out, status := b.plainly("status", b.address); status != exitOK || !strings.Contains(out, "2.0.0") {
		t.Errorf("exit status %d\n%s", status, out)
	}

	plain := newBoard(t, maker, "")
	out, status = plain.run(plain.command("upgrade", plain.address, "--image", software, "--yes", "--listen", "127.0.0.1", "--notifications", "none", "--poll", "100ms"))
	if status == exitOK || !strings.Contains(out, "payload kernel is for the partition of a bank") {
		t.Errorf("without partitions: exit status %d\n%s", status, out)
	}
	if list, err := os.ReadDir(filepath.Join(plain.root, "bank2")); err != nil || len(list) != 0 {
		t.Errorf("bank 2 was written: %v, %v", list, err)
	}
}
