package archive_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/fleet"
	"example.com/iad/fleet/archive"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
)

func TestBackupsAreCopied(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := engine.Start(ctx, engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, e, key)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("iad-config userData 1\nline = 1\n")
	sum := sha256.Sum256(data)
	add := func(id string) {
		b := &fleet.Backup{Device: "attic", ID: id, Good: true, Files: []fleet.BackupFile{{Kind: "userData", Size: int64(len(data)), Digest: hex.EncodeToString(sum[:])}}}
		if err := s.AddBackup(ctx, b, map[string][]byte{"userData": data}); err != nil {
			t.Fatal(err)
		}
	}
	add("before")
	dir := t.TempDir()
	copying, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		ended <- archive.Copy(copying, s, afero.NewBasePathFs(afero.NewOsFs(), dir), slog.New(slog.DiscardHandler))
	}()
	add("after")
	appears := func(id string, wanted bool) {
		t.Helper()
		for {
			_, err := os.Stat(filepath.Join(dir, "attic", id, "SHA256SUMS"))
			if (err == nil) == wanted {
				return
			}
			select {
			case <-time.After(10 * time.Millisecond): // files cannot be waited for portably
			case <-ctx.Done():
				t.Fatalf("copy of %s: %v", id, err)
			}
		}
	}
	for _, id := range []string{"before", "after"} {
		appears(id, true)
		cmd := exec.Command("sha256sum", "-c", "SHA256SUMS")
		cmd.Dir = filepath.Join(dir, "attic", id)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", id, err, out)
		}
	}
	// The copy of a damaged backup may be the last one.
	b, err := s.Engine.Bucket(ctx, engine.Backups)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := b.Get(ctx, engine.Key("attic", "after"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(ctx, entry.Key, []byte("{"), entry.Revision); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveBackup(ctx, "attic", "before"); err != nil {
		t.Fatal(err)
	}
	appears("before", false)
	appears("after", true)
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
