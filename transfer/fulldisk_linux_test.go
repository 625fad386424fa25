package transfer_test

import (
	"crypto/sha256"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/iad/mib"
)

func TestFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, s := range realServers {
		if s.readOnly {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=256k,mode=777"); err != nil {
				t.Fatalf("mount: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
			c := s.start(t, root).client(t)
			content := testContent(2<<20, 1)
			err := put(t, c, "large", content)
			if s.name == "tftpd-hpa" && err == nil {
				// It acknowledges what it cannot write: only reading back shows that.
				open(t, filepath.Join(root, "large"))
				sum := sha256.Sum256(content)
				wantCause(t, c.Verify(testContext(t), "large", int64(len(content)), sum[:]), mib.FailCauseSizeMismatch)
				return
			}
			wantCause(t, err, mib.FailCauseRemoteStorageFull)
			t.Log(err)
		})
	}
}
